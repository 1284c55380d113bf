//! kero-whatsapp
