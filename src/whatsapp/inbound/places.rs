//! Locations, pinned and live.

use super::{Body, Data};
use waproto::whatsapp as wa;

#[derive(Debug)]
pub(super) struct Place {
    latitude: f64,
    longitude: f64,
    name: Option<String>,
    address: Option<String>,
}

impl Place {
    /// Coordinates are texts with six decimals, as Kero-Kero writes them.
    pub(super) fn put(&self, data: &mut Data) {
        data.put("latitude", format!("{:.6}", self.latitude));
        data.put("longitude", format!("{:.6}", self.longitude));
        data.put_text("location_name", self.name.as_deref());
        data.put_text("location_address", self.address.as_deref());
    }
}

pub(super) fn read(message: &wa::Message) -> Option<Body> {
    if let Some(it) = message.location_message.as_option() {
        let place = Place {
            latitude: it.degrees_latitude.unwrap_or_default(),
            longitude: it.degrees_longitude.unwrap_or_default(),
            name: it.name.clone(),
            address: it.address.clone(),
        };
        let mut extra = Data::default();
        extra.put_text("url", it.url.as_deref());
        return Some(Body {
            message_type: "location",
            caption: it.comment.clone(),
            place: Some(place),
            extra,
            ..Body::default()
        });
    }
    if let Some(it) = message.live_location_message.as_option() {
        let place = Place {
            latitude: it.degrees_latitude.unwrap_or_default(),
            longitude: it.degrees_longitude.unwrap_or_default(),
            name: None,
            address: None,
        };
        let mut extra = Data::default();
        extra.put("live", true);
        extra.put_some("accuracy_meters", it.accuracy_in_meters);
        extra.put_some("sequence_number", it.sequence_number);
        return Some(Body {
            message_type: "location",
            caption: it.caption.clone(),
            place: Some(place),
            extra,
            ..Body::default()
        });
    }
    None
}
