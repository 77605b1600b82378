//! A PostgreSQL server for tests.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;

/// Tests use this server instead of a private one, if it is set. Its user has to be allowed to create databases.
const SERVER_VARIABLE: &str = "RMOM_TEST_DATABASE_URL";
/// The same as in [`WATCHER`].
const USER: &str = "rmom";
/// How long the server may take to start or stop.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);
/// Below the ports that systems give to outgoing connections, so that a port is still free after a restart.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Creates the database, runs the server, and stops it when this process ends.
const WATCHER: &str = include_str!("postgres.sh");

/// A server: a private one, which this process starts and stops, or the one that `RMOM_TEST_DATABASE_URL` names.
#[derive(Debug)]
pub struct PgServer {
    place: Place,
    password: String,
    created: AtomicU32,
}

#[derive(Debug)]
enum Place {
    Private(Box<Private>),
    /// A URL without a database, and its user.
    External(Box<PgConnectOptions>),
}

#[derive(Debug)]
struct Private {
    bin: PathBuf,
    /// Removed by the watcher or by its `Drop`; the server's user owns it, so both can.
    folder: TempDir,
    user: Option<(u32, u32)>,
    port: u16,
    settings: Vec<(String, String)>,
    watcher: Mutex<Option<Child>>,
}

/// A fresh database. It goes with its server; on a server that is not ours, its own `Drop` removes it.
#[derive(Debug)]
pub struct TestDatabase {
    server: Arc<PgServer>,
    name: String,
}

impl PgServer {
    /// The server that the tests of this process share: the one that `RMOM_TEST_DATABASE_URL` names, or a private one, which
    /// stops when the last test has dropped it.
    ///
    /// # Panics
    /// If there is neither.
    pub fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<PgServer>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock();
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let server = match std::env::var(SERVER_VARIABLE) {
            Ok(url) => {
                let options: PgConnectOptions = url.parse().unwrap_or_else(|e| panic!("{SERVER_VARIABLE}: {e}"));
                let password = url_password(&options);
                Arc::new(Self { place: Place::External(Box::new(options)), password, created: AtomicU32::new(0) })
            }
            Err(_) => Arc::new(Self::start()),
        };
        *shared = Arc::downgrade(&server);
        server
    }

    /// Starts a private server with default settings, fsync included.
    ///
    /// # Panics
    /// If PostgreSQL is not installed, or does not start.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Like [`PgServer::start`], with settings of the caller's.
    ///
    /// # Panics
    /// In the cases of [`PgServer::start`].
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        Self::start_as(settings, None)
    }

    /// Starts a hot standby of this server. It answers reads, and is behind.
    ///
    /// # Panics
    /// If this is not a private server, and in the cases of [`PgServer::start`].
    pub fn start_standby(&self, settings: &[(&str, &str)]) -> Self {
        let _ = self.private();
        Self::start_as(settings, Some(self))
    }

    fn start_as(settings: &[(&str, &str)], primary: Option<&Self>) -> Self {
        let bin = find_binaries();
        let user = unprivileged_user();
        let folder = tempfile::Builder::new().prefix("rmom-postgres-").tempdir().expect("a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).expect("own folder");
        if let Some((uid, gid)) = user {
            chown(folder.path(), Some(uid), Some(gid)).expect("root may give a folder away");
        }
        let password = primary.map_or_else(random_word, |primary| primary.password.clone());
        let private = Private {
            bin,
            folder,
            user,
            port: free_port(),
            settings: settings.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            watcher: Mutex::new(None),
        };
        private.write("password", &password);
        if let Some(primary) = primary {
            private.write("primary", &primary.url("postgres"));
        }
        private.run();
        Self { place: Place::Private(Box::new(private)), password, created: AtomicU32::new(0) }
    }

    fn private(&self) -> &Private {
        match &self.place {
            Place::Private(private) => private,
            Place::External(_) => panic!("this needs a private server: PgServer::start()"),
        }
    }

    /// Host and port, as a proxy needs them.
    pub fn authority(&self) -> String {
        match &self.place {
            Place::Private(private) => format!("127.0.0.1:{}", private.port),
            Place::External(options) => format!("{}:{}", options.get_host(), options.get_port()),
        }
    }

    /// The URL of a database on this server.
    pub fn url(&self, database: &str) -> String {
        self.url_through(&self.authority(), database)
    }

    /// Like [`PgServer::url`], but through a proxy at this host and port.
    pub fn url_through(&self, authority: &str, database: &str) -> String {
        let user = match &self.place {
            Place::Private(_) => USER,
            Place::External(options) => options.get_username(),
        };
        format!("postgres://{user}:{}@{authority}/{database}", self.password)
    }

    async fn admin(&self) -> PgConnection {
        let options = match &self.place {
            Place::Private(_) => self.url("postgres").parse().expect("own URL"),
            Place::External(options) => (**options).clone(),
        };
        options.connect().await.unwrap_or_else(|e| panic!("cannot connect to the test server: {e}"))
    }

    /// Runs SQL as the administrator, in the administrator's database.
    ///
    /// # Panics
    /// If it fails.
    pub async fn execute(&self, sql: &str) {
        let mut conn = self.admin().await;
        conn.execute(AssertSqlSafe(sql)).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let _ = conn.close().await;
    }

    /// Creates an empty database with a name that was not used before.
    ///
    /// # Panics
    /// If it fails.
    pub async fn create_database(self: &Arc<Self>) -> TestDatabase {
        let number = self.created.fetch_add(1, Ordering::Relaxed);
        let name = format!("rmom_{}_{number}_{}", std::process::id(), &random_word()[..8]);
        self.execute(&format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")).await;
        TestDatabase { server: Arc::clone(self), name }
    }

    /// Kills the server with SIGKILL, like a crash of its machine, and waits until it is gone.
    ///
    /// # Panics
    /// If the server is not private, or not running.
    pub fn kill9(&self) {
        let private = self.private();
        let pid = private.pid().expect("the server runs");
        let status = Command::new("kill").args(["-9", &pid]).status().expect("kill is installed");
        assert!(status.success(), "cannot kill the server, process {pid}");
        private.stop("keep");
    }

    /// Starts the server again after [`PgServer::kill9`], on the same port.
    ///
    /// # Panics
    /// If the server is not private, or does not start.
    pub fn restart(&self) {
        self.private().run();
    }
}

impl Drop for PgServer {
    fn drop(&mut self) {
        if let Place::Private(private) = &self.place {
            private.stop("remove");
        }
    }
}

impl Private {
    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn write(&self, name: &str, content: &str) {
        let file = self.folder.path().join(name);
        fs::write(&file, content).expect("own folder");
        if let Some((uid, gid)) = self.user {
            chown(&file, Some(uid), Some(gid)).expect("root may give a file away");
        }
    }

    fn run(&self) {
        let log = fs::File::create(self.folder.path().join("watcher.log")).expect("own folder");
        let mut command = Command::new("/bin/sh");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
            .current_dir(self.folder.path())
            .env_remove("PGDATA")
            .env_remove("PGPORT")
            .args(["-c", WATCHER, "watcher"])
            .arg(self.folder.path())
            .arg(&self.bin)
            .args(["-p", &self.port.to_string(), "-h", "127.0.0.1", "-k"])
            .arg(self.folder.path())
            .args(["-c", "max_connections=200", "-c", "logging_collector=off"]);
        for (name, value) in &self.settings {
            command.args(["-c", &format!("{name}={value}")]);
        }
        // A group of its own, so that ^C at the terminal does not reach the watcher before this process is gone.
        command.stdin(Stdio::piped()).stdout(log.try_clone().expect("a second handle")).stderr(log).process_group(0);
        let _ = fs::remove_file(self.data().join("postmaster.pid"));
        *self.watcher.lock() = Some(command.spawn().expect("/bin/sh runs"));
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            assert!(Instant::now() < deadline, "the server does not start: {}", self.log());
            let exited = self.watcher.lock().as_mut().is_none_or(|w| !matches!(w.try_wait(), Ok(None)));
            assert!(!exited && !self.has_failed(), "the server does not start: {}", self.log());
            thread::sleep(POLL);
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("watcher.log")).unwrap_or_default()
    }

    /// True if the server has given up. Refusals of clients during start or recovery are also logged as FATAL.
    fn has_failed(&self) -> bool {
        self.log().lines().any(|line| line.contains("FATAL") && !line.contains("the database system is"))
    }

    fn pid_file(&self) -> Option<String> {
        fs::read_to_string(self.data().join("postmaster.pid")).ok()
    }

    fn pid(&self) -> Option<String> {
        self.pid_file()?.lines().next().map(str::to_owned)
    }

    /// Reads the eighth line of the pid file, as pg_ctl does.
    fn is_ready(&self) -> bool {
        self.pid_file().is_some_and(|file| file.lines().nth(7).is_some_and(|status| status.trim() == "ready"))
    }

    /// Stops the server if it runs, and its watcher.
    fn stop(&self, word: &str) {
        let Some(mut watcher) = self.watcher.lock().take() else { return };
        if let Some(mut stdin) = watcher.stdin.take() {
            let _ = writeln!(stdin, "{word}");
        }
        let deadline = Instant::now() + PATIENCE;
        while matches!(watcher.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                let _ = watcher.kill();
                break;
            }
            thread::sleep(POLL);
        }
        let _ = watcher.wait();
    }
}

impl TestDatabase {
    /// Its URL.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// Its URL through a proxy.
    pub fn url_through(&self, authority: &str) -> String {
        self.server.url_through(authority, &self.name)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The server it is on.
    pub fn server(&self) -> &Arc<PgServer> {
        &self.server
    }

    /// A connection of its own, beside the store's.
    ///
    /// # Panics
    /// If it fails.
    pub async fn connect(&self) -> PgConnection {
        let options: PgConnectOptions = self.url().parse().expect("own URL");
        options.connect().await.unwrap_or_else(|e| panic!("cannot connect to the test database: {e}"))
    }

    /// Runs SQL in it.
    ///
    /// # Panics
    /// If it fails.
    pub async fn execute(&self, sql: &str) {
        let mut conn = self.connect().await;
        conn.execute(AssertSqlSafe(sql)).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        let _ = conn.close().await;
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if matches!(self.server.place, Place::Private(_)) {
            return;
        }
        let (server, name) = (Arc::clone(&self.server), self.name.clone());
        // The test's own runtime may be gone.
        let dropped = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            runtime.map(|runtime| runtime.block_on(server.execute(&sql)))
        });
        let _ = dropped.join();
    }
}

/// The folder of `postgres` and `initdb`.
fn find_binaries() -> PathBuf {
    let has_both = |folder: &PathBuf| folder.join("postgres").is_file() && folder.join("initdb").is_file();
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| has_both(folder))
        .collect();
    found.sort();
    let in_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).find_map(|folder| {
            let real = fs::canonicalize(folder.join("postgres")).ok()?;
            real.parent().map(Path::to_owned).filter(has_both)
        })
    });
    in_path.or_else(|| found.pop().map(|(_, folder)| folder)).unwrap_or_else(|| {
        panic!(
            "PostgreSQL is not installed, and these tests need it. Debian, Ubuntu: apt-get install postgresql. macOS: \
             brew install postgresql. Or set {SERVER_VARIABLE} to the URL of a server whose user may create databases."
        )
    })
}

/// PostgreSQL does not run as root. The user and group to run it as instead; `None` means this process' own.
fn unprivileged_user() -> Option<(u32, u32)> {
    let own = fs::metadata("/proc/self").or_else(|_| tempfile::tempdir().and_then(|dir| fs::metadata(dir.path())));
    if own.expect("a file of our own").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("root can read the users");
    let find = |name: &str| {
        let fields: Vec<&str> = users
            .lines()
            .map(|line| line.split(':'))
            .find_map(|mut fields| (fields.next() == Some(name)).then(|| fields.collect()))?;
        Some((fields.get(1)?.parse().ok()?, fields.get(2)?.parse().ok()?))
    };
    let user = find("postgres").or_else(|| find("nobody"));
    Some(user.expect("PostgreSQL refuses to run as root, and there is no user postgres or nobody"))
}

fn free_port() -> u16 {
    let span = u32::from(PORTS.end - PORTS.start);
    let start = u32::from_str_radix(&random_word()[..7], 16).expect("hexadecimal");
    (0..span)
        .map(|step| PORTS.start + u16::try_from((start + step) % span).expect("below the span"))
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port")
}

/// 128 random bits in hexadecimal.
fn random_word() -> String {
    let mut bits = [0; 16];
    let read = |bits: &mut [u8]| -> io::Result<()> { fs::File::open("/dev/urandom")?.read_exact(bits) };
    read(&mut bits).expect("/dev/urandom");
    format!("{:032x}", u128::from_ne_bytes(bits))
}

fn url_password(options: &PgConnectOptions) -> String {
    options.to_url_lossy().password().unwrap_or_default().to_owned()
}
