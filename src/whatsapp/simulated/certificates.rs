//! A build that checks certificates refuses the simulator, whose chain nobody knows.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_noise_certificate_is_refused() {
    let setup = Setup::new().await;
    let mut running = setup.start(Some(PairBy::Qr)).await;
    let end = running.end().await;
    assert!(matches!(end, LinkEvent::Closed(Cause::CertificateRefused)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tls_certificate_is_refused() {
    let mut setup = Setup::new().await;
    setup.config.url = Some(setup.simulator.wss_url());
    let mut running = setup.start(Some(PairBy::Qr)).await;
    let end = running.end().await;
    assert!(matches!(end, LinkEvent::Closed(Cause::CertificateRefused)), "{end:?}");
}
