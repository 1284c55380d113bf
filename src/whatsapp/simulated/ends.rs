//! How connections end.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_is_told_once_and_a_new_link_takes_over() {
    let (setup, mut running) = Setup::paired().await;
    setup.simulator.inject(FaultRule::new(Fault::DropSocket).phone(PHONE));
    assert!(matches!(running.end().await, LinkEvent::Disconnected { .. }));
    let refused = running.link.send(&peer(), &MessageId::mint(), &[], false).await;
    assert!(matches!(refused, Err(SendError::NotConnected)));

    setup.simulator.send_text(PEER, PHONE, "while away").await.unwrap();
    let before = setup.simulator.stats().ik;
    let mut running = setup.start(None).await;
    running.connected().await;
    setup.journal.wait(|event| event.data["text"] == "while away").await;
    assert_eq!(setup.simulator.stats().ik, before + 1, "a known server is greeted with the short handshake");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_ends_the_link_with_the_reason() {
    let (setup, running) = Setup::paired().await;
    running.link.stop().await;
    setup.simulator.shutdown().await;
    let mut running = setup.start(None).await;
    let LinkEvent::Disconnected { detail } = running.end().await else { panic!("another end") };
    assert!(detail.contains("no connection"), "{detail}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_final_end_has_its_cause() {
    for (code, cause) in [(401, Cause::DeviceRemoved), (409, Cause::Replaced)] {
        let (setup, mut running) = Setup::paired().await;
        setup.simulator.inject(FaultRule::new(Fault::StreamError).phone(PHONE).code(code));
        let end = running.end().await;
        assert!(matches!(end, LinkEvent::Closed(found) if found == cause), "{code}: {end:?}");
    }
    for (code, cause) in [(402, Cause::TemporaryBan), (403, Cause::AccountLocked), (405, Cause::ClientOutdated)] {
        let (setup, running) = Setup::paired().await;
        running.link.stop().await;
        setup.nobody_connected().await;
        setup.simulator.inject(FaultRule::new(Fault::StreamError).phone(PHONE).code(code));
        let end = setup.start(None).await.end().await;
        assert!(matches!(end, LinkEvent::Closed(found) if found == cause), "{code}: {end:?}");
    }
    // WhatsApp's own hiccups are worth another attempt
    for code in [503, 515] {
        let (setup, mut running) = Setup::paired().await;
        setup.simulator.inject(FaultRule::new(Fault::StreamError).phone(PHONE).code(code));
        let end = running.end().await;
        assert!(matches!(end, LinkEvent::Disconnected { .. }), "{code}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_link_is_silent() {
    let (setup, mut running) = Setup::paired().await;
    running.link.abandon().await;
    assert!(!running.link.is_connected());
    let rest = tokio::time::timeout(SOON, async { while running.events.recv().await.is_some() {} }).await;
    assert!(rest.is_ok(), "the receiver never ends");
    setup.nobody_connected().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_link_closes_its_socket() {
    let (setup, running) = Setup::paired().await;
    drop(running);
    setup.nobody_connected().await;
}
