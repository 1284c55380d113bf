//! Becoming a linked device, and ceasing to be one.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn pairs_by_qr_and_tells_who_it_is() {
    let setup = Setup::new().await;
    assert!(!crate::is_paired(&setup.store, setup.instance_pk).await.unwrap());
    let mut running = setup.start(Some(PairBy::Qr)).await;
    assert!(!crate::is_paired(&setup.store, setup.instance_pk).await.unwrap());
    let (code, expires_in) = running
        .until("qr", |event| {
            if let LinkEvent::PairingQr { code, expires_in } = event { Some((code, expires_in)) } else { None }
        })
        .await;
    assert!(expires_in > Duration::from_secs(50));
    setup.simulator.scan_qr(&code, Some(PHONE)).await.unwrap();
    running.until("scanned", |event| matches!(event, LinkEvent::Scanned).then_some(())).await;
    let (jid, phone, lid) = running
        .until("paired", |event| {
            if let LinkEvent::Paired { jid, phone, lid, .. } = event { Some((jid, phone, lid)) } else { None }
        })
        .await;
    assert!(jid.starts_with(&format!("{PHONE}:")), "{jid}");
    assert_eq!(phone.as_deref(), Some(PHONE));
    let later = running
        .until("connected", |event| {
            if let LinkEvent::Connected { jid, phone, lid, .. } = event { Some((jid, phone, lid)) } else { None }
        })
        .await;
    assert_eq!(later, (jid, phone, lid));
    running.link.stop().await;
    assert!(running.events.recv().await.is_none(), "an ordered stop is no news");
    assert!(crate::is_paired(&setup.store, setup.instance_pk).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_by_code() {
    let setup = Setup::new().await;
    let mut running = setup.start(Some(PairBy::Code { phone: PHONE.into() })).await;
    let code = running
        .until("code", |event| {
            assert!(!matches!(event, LinkEvent::PairingQr { .. }), "a QR code although a pair code was asked for");
            if let LinkEvent::PairingCode { code, .. } = event { Some(code) } else { None }
        })
        .await;
    setup.simulator.enter_code(PHONE, &code).await.unwrap();
    running.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_is_confirmed_by_whatsapp() {
    let (setup, mut running) = Setup::paired().await;
    assert_eq!(setup.simulator.stats().devices, 1);
    running.link.logout(SOON).await.unwrap();
    assert_eq!(setup.simulator.stats().devices, 0);
    while let Some(event) = running.events.recv().await {
        assert!(
            !matches!(event, LinkEvent::Closed(_) | LinkEvent::Disconnected { .. }),
            "what was asked for is no news: {event:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unlinking_from_the_phone_closes_the_link() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.unlink(PHONE, None).await.unwrap();
    assert!(matches!(running.end().await, LinkEvent::Closed(Cause::DeviceRemoved)));
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_over_tls() {
    let mut setup = Setup::new().await;
    setup.config.url = Some(setup.simulator.wss_url());
    let mut running = setup.start(Some(PairBy::Qr)).await;
    let code = running
        .until("qr", |event| if let LinkEvent::PairingQr { code, .. } = event { Some(code) } else { None })
        .await;
    setup.simulator.scan_qr(&code, Some(PHONE)).await.unwrap();
    running.connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_pair_code_ends_the_link() {
    let setup = Setup::new().await;
    let mut running = setup.start(Some(PairBy::Code { phone: "1".into() })).await;
    running.until("failure", |event| matches!(event, LinkEvent::PairingFailed { .. }).then_some(())).await;
    let end = running.end().await;
    assert!(matches!(end, LinkEvent::Closed(Cause::PairingFailed)), "{end:?}");
}
