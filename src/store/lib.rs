//! kero-store
