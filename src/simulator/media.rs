//! Media: what clients upload, encrypted as it is, under the token that they chose.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;

use crate::world::lock;

/// Files in memory by token. They outlive the uploader's connection.
#[derive(Default)]
pub(crate) struct MediaStore {
    files: Mutex<HashMap<String, Bytes>>,
}

impl MediaStore {
    pub fn put(&self, token: &str, bytes: Bytes) {
        lock(&self.files).insert(token.to_owned(), bytes);
    }

    pub fn get(&self, token: &str) -> Option<Bytes> {
        lock(&self.files).get(token).cloned()
    }

    pub fn len(&self) -> usize {
        lock(&self.files).len()
    }
}

/// Path under which a file is downloaded.
pub(crate) fn direct_path(token: &str) -> String {
    format!("{DOWNLOADS}{token}")
}

/// Where all downloads lie.
pub(crate) const DOWNLOADS: &str = "/v/sim/";

/// The token of an upload path, `/mms/<kind>/<token>` with more before it in some clients.
pub(crate) fn upload_token(path: &str) -> Option<&str> {
    let upload = path.contains("/mms/") || path.contains("/product/") || path.contains("/pps/");
    path.rsplit('/').next().filter(|token| upload && !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_are_known_by_their_path() {
        assert_eq!(upload_token("/mms/image/abc"), Some("abc"));
        assert_eq!(upload_token("/newsletter/newsletter-image/mms/abc"), Some("abc"));
        assert_eq!(upload_token("/mms/image/"), None);
        assert_eq!(upload_token("/v/sim/abc"), None);
    }
}
