//! kero-gateway
