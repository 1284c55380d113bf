//! How an unpaired instance becomes a linked device, and how it leaves.

use std::sync::Arc;
use std::time::Duration;
use wacore::iq::devices::RemoveCompanionDeviceSpec;
use wacore::iq::spec::IqSpec;
use wacore::request::InfoQuery;
use wacore_binary::{Jid, NodeRef};
use whatsapp_rust::Client;
use whatsapp_rust::pair_code::PairCodeOptions;

/// What the phone's owner does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PairBy {
    /// Scan a QR code.
    Qr,
    /// Enter the eight-character code that is shown here; `phone` are the digits of the account's number.
    Code { phone: String },
}

/// Asks WhatsApp for a pair code as soon as the socket is open. The code and every failure come as events.
pub(crate) async fn request_code(client: Arc<Client>, phone: String) {
    if client.wait_for_socket(Duration::from_secs(60)).await.is_err() || client.is_logged_in() {
        return; // the driver reports how the connection ended
    }
    let options = PairCodeOptions { phone_number: phone, ..Default::default() };
    if let Err(error) = client.pair_with_code(options).await {
        tracing::debug!(%error, "the pair code was not granted");
    }
}

/// The query that removes this device. The client's own gives up after three seconds and hides the failure.
pub(crate) struct Unlink {
    query: RemoveCompanionDeviceSpec,
    timeout: Duration,
}

impl Unlink {
    pub(crate) fn new(device: &Jid, timeout: Duration) -> Self {
        Self { query: RemoveCompanionDeviceSpec::new(device), timeout }
    }
}

impl IqSpec for Unlink {
    type Response = ();

    fn build_iq(&self) -> InfoQuery<'static> {
        self.query.build_iq().with_timeout(self.timeout)
    }

    fn parse_response(&self, response: &NodeRef<'_>) -> Result<(), anyhow::Error> {
        self.query.parse_response(response)
    }
}
