//! kero-migrations
