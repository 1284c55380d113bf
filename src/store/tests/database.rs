//! A database of one's own for a test: a SQLite file in a temporary folder, or a fresh database in Postgres.
//!
//! Postgres is what `KERO_TEST_POSTGRES_URL` names (a user that may create databases), else a private cluster on a
//! socket in a temporary folder, which ends with this process, however that ends. There is no skipping: without
//! Postgres the test fails and says what to install.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs as a user that Postgres accepts. Its standard input closes when the test process ends.
const CLUSTER: &str = r#"
set -eu
dir=$(mktemp -d "${TMPDIR:-/tmp}/kero-postgres.XXXXXX")
cd "$dir"
"$1/initdb" -D "$dir/data" -U kero -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$dir/initdb.log" 2>&1 || { cat "$dir/initdb.log"; exit 1; }
"$1/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off -c max_connections=200 >"$dir/log" 2>&1 &
pid=$!
for _ in $(seq 300); do "$1/pg_isready" -q -h "$dir" && break; sleep 0.1; done
echo "$dir"
cat >/dev/null
kill -INT $pid
wait $pid || true
rm -rf "$dir"
"#;

struct Cluster {
    url: String,
    psql: PathBuf,
    /// Open as long as the cluster shall live.
    _input: Option<ChildStdin>,
}

fn binaries() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    found.retain(|folder| ["initdb", "postgres", "psql"].iter().all(|name| folder.join(name).exists()));
    found.pop().unwrap_or_else(|| {
        panic!("no Postgres server found: install the package `postgresql`, or set KERO_TEST_POSTGRES_URL")
    })
}

fn start() -> Cluster {
    if let Ok(url) = std::env::var("KERO_TEST_POSTGRES_URL") {
        return Cluster { url, psql: PathBuf::from("psql"), _input: None };
    }
    let binaries = binaries();
    // Postgres refuses to run as root
    let root = std::fs::metadata("/proc/self").map(|data| std::os::unix::fs::MetadataExt::uid(&data) == 0);
    let mut command = if root.unwrap_or(false) {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--", "sh"]);
        command
    } else {
        Command::new("sh")
    };
    #[allow(clippy::zombie_processes, reason = "the cluster ends with the test process")]
    let mut child = command
        .args(["-c", CLUSTER, "cluster"])
        .arg(&binaries)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell to start Postgres (package `postgresql`)");
    let mut folder = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut folder).unwrap();
    let folder = folder.trim();
    assert!(folder.starts_with('/'), "Postgres (package `postgresql`) did not start: {folder}");
    Cluster {
        url: format!("postgres://kero@localhost/postgres?host={folder}"),
        psql: binaries.join("psql"),
        _input: child.stdin.take(),
    }
}

/// A fresh database's URL.
pub fn postgres() -> String {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let cluster = CLUSTER.get_or_init(start);
    let name = format!("kero_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let done = Command::new(&cluster.psql)
        .arg("-qX")
        .arg(&cluster.url)
        .args(["-c", &format!("CREATE DATABASE {name}")])
        .output()
        .expect("psql (package `postgresql`)");
    assert!(done.status.success(), "no database: {}", String::from_utf8_lossy(&done.stderr));
    let (address, options) = cluster.url.split_once('?').map_or((cluster.url.as_str(), ""), |(a, o)| (a, o));
    let (server, _) = address.rsplit_once('/').expect("postgres://server/database");
    format!("{server}/{name}?{options}")
}

/// A fresh SQLite file's URL, and the folder that it lies in.
pub fn sqlite() -> (String, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (format!("sqlite://{}?mode=rwc", folder.path().join("kero.db").display()), folder)
}
