//! kero-whatsapp
pub mod device_store;
