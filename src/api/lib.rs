//! kero-api
