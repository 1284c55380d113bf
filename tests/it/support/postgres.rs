//! A database of its own for each test, on the server that `tests/run` started.

/// `KERO_TEST_POSTGRES_URL` names a server where databases may be created.
pub async fn database_url() -> String {
    let server = std::env::var("KERO_TEST_POSTGRES_URL").expect(
        "KERO_TEST_POSTGRES_URL is not set: run tests/run, which starts a private Postgres (Debian package: postgresql)",
    );
    let name = format!("kero_{}", uuid::Uuid::now_v7().simple());
    kero_store::testing::create_database(&server, &name).await.expect("the test database is created");
    let (base, query) = server.split_once('?').map_or((server.as_str(), ""), |(base, query)| (base, query));
    let base = base.trim_end_matches('/').rsplit_once('/').map_or(base, |(base, _)| base);
    if query.is_empty() { format!("{base}/{name}") } else { format!("{base}/{name}?{query}") }
}
