//! The server that is attacked: this same program, started again.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use engine::testing::ThumbnailEmbedder;
use indexer::Manifest;
use indexer::fetch::Resolver;
use web::clock::Clock;
use web::guard::{Limits, Settings};
use web::remote::RemoteOptions;
use web::{AppState, Config, Model, ModelSource, NamedModel, Options, Which};

/// Names the home folder; the program is the server when it is set.
pub const HOME: &str = "ATTACKED_HOME";

struct Models(Model);

impl ModelSource for Models {
    fn for_collection(&self, _: &Manifest) -> Result<Model, String> {
        Ok(Arc::clone(&self.0))
    }

    fn named(&self, name: Option<&str>) -> Result<NamedModel, String> {
        match name {
            None => Ok(NamedModel { model: Arc::clone(&self.0), source: "thumbnail".to_owned() }),
            Some(name) => Err(format!("there is no model `{name}` here")),
        }
    }

    fn device(&self) -> String {
        "cpu".to_owned()
    }
}

/// `rebind.test` is harmless when it is asked for first, and this machine from then on.
fn resolver() -> Resolver {
    let asked = AtomicUsize::new(0);
    Resolver::new(move |host| {
        let address = match host {
            "rebind.test" if asked.fetch_add(1, Ordering::SeqCst) == 0 => "192.0.2.1",
            "rebind.test" => "127.0.0.2",
            "both.test" => return Ok(vec![address("1.1.1.1"), address("10.0.0.1")]),
            "metadata.test" => "169.254.169.254",
            "localhost" => "127.0.0.3",
            _ => return Err(std::io::Error::other("no such host")),
        };
        Ok(vec![self::address(address)])
    })
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
#[ignore = "started by the other tests, as a process of its own"]
fn serve() {
    let Some(home) = std::env::var_os(HOME) else { return };
    let home = Path::new(&home).to_path_buf();
    let limits = Limits {
        head_time: Duration::from_secs(1),
        body_pause: Duration::from_secs(1),
        body_time: Duration::from_secs(4),
        ..Limits::default()
    };
    let options = Options {
        access: Settings { limits, ..Settings::default() },
        remote: RemoteOptions {
            // The test's own server is at the first; the second is in no network.
            allowed: vec![address("127.0.0.1"), address("192.0.2.1")],
            resolver: resolver(),
            ..RemoteOptions::default()
        },
        roots: vec![home.join("roots")],
        // What is kept on purpose: full after a few pictures, so that all else can be seen.
        query_bytes: 1 << 20,
        ..Options::default()
    };
    let model: Model = Arc::new(ThumbnailEmbedder::default());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let config = Config {
            home,
            collections: Which::All,
            models: Box::new(Models(model)),
            options,
            clock: Clock::default(),
        };
        let state = AppState::open(config).expect("opens");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        println!("\nlistening on {}", listener.local_addr().expect("an address"));
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        // Ends when the test does.
        std::thread::spawn(move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            let _ = stop.send(());
        });
        let stopped = async {
            let _ = stopped.await;
        };
        web::serve(listener, state, stopped).await.expect("serves");
    });
}
