//! Tests of the room without a gateway: the document, the frame, what is public and what needs a key.

mod document;
mod served;

use crate::config::ApiConfig;
use crate::handle::Handle;
use poem::endpoint::BoxEndpoint;
use poem::test::TestClient;

const KEY: &str = "admin-key";

fn client() -> TestClient<BoxEndpoint<'static>> {
    client_with(|_| {})
}

fn client_with(change: impl FnOnce(&mut ApiConfig)) -> TestClient<BoxEndpoint<'static>> {
    let mut config = ApiConfig { admin_key_hash: Some(crate::hash_key(KEY)), ..ApiConfig::default() };
    change(&mut config);
    TestClient::new(crate::service::app(Handle::inert(), config))
}
