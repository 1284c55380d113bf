//! kero-domain
