//! Pairing on the wire.

use super::recipient::PhoneNumber;
use super::time::Moment;
use crate::body::Body;
use poem_openapi::Object;

/// The QR code to scan now.
#[derive(Object)]
pub(crate) struct Qr {
    /// Always true.
    pub success: bool,
    pub instance_id: String,
    /// The picture: a PNG in base64.
    pub qr_code: String,
    /// What the picture says, to draw it yourself.
    pub code: String,
    /// Always `base64`.
    pub format: String,
    /// Always `png`.
    pub image_type: String,
    /// From then on the next code counts.
    pub expires_at: Moment,
}

/// The phone to pair with.
#[derive(Object)]
pub(crate) struct PairByPhone {
    /// The account's own number, in international form.
    pub phone: PhoneNumber,
}

impl Body for PairByPhone {
    const ALIASES: &'static [(&'static str, &'static str)] = &[("phone_number", "phone")];
}

/// The code to enter on the phone.
#[derive(Object)]
pub(crate) struct PairCode {
    /// Always true.
    pub success: bool,
    pub instance_id: String,
    /// Enter it on the phone under Linked devices → Link with phone number.
    pub code: String,
    pub expires_at: Moment,
}
