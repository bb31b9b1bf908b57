//! The demonstration's application, one program in several roles. It knows nothing of the mesh: plain HTTP/1.1, plain
//! gRPC, plain TCP, as any application would speak.
//!
//! ```text
//!  load ─HTTP→ web ─HTTP→ front ─gRPC→ colour (v1, v2)
//!                              └─TCP→  tally
//! ```

mod colour;
mod front;
mod http;
mod load;
mod names;
mod tally;

use clap::{Args, Subcommand};
pub use load::Seen;
use std::net::SocketAddr;

/// Where a role listens: all addresses of the pod, or the one it is told where it has none to itself.
fn any(port: u16) -> SocketAddr {
    SocketAddr::new(
        names::bind().unwrap_or(std::net::Ipv6Addr::UNSPECIFIED.into()),
        port,
    )
}

/// The built-in application of the demonstration.
#[derive(Debug, Args)]
pub struct AppArgs {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serves the page, and `/cell` from the front
    Web {
        #[arg(long, default_value_t = 8080)]
        port: u16,
        #[arg(long, default_value = "front:8080")]
        front: String,
    },
    /// Serves `/cell`: a colour by gRPC, and a line to the tally
    Front {
        #[arg(long, default_value_t = 8080)]
        port: u16,
        #[arg(long, default_value = "colour:9000")]
        colour: String,
        #[arg(long, default_value = "tally:7000")]
        tally: String,
    },
    /// Serves colours by gRPC
    Colour {
        #[arg(long, default_value_t = 9000)]
        port: u16,
        /// Which release this is: it decides the colour
        #[arg(long, default_value = "v1")]
        release: String,
        /// Wait so long before each answer
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
    },
    /// Counts lines, over plain TCP
    Tally {
        #[arg(long, default_value_t = 7000)]
        port: u16,
    },
    /// Calls the page at a constant rate and prints what it saw, four JSON lines a second
    Load {
        #[arg(long, default_value = "web:8080")]
        target: String,
        /// Requests per second
        #[arg(long, default_value_t = 100)]
        rate: u32,
    },
    /// Makes the colour service of this pod fail, or work again
    Fail {
        #[arg(value_parser = ["on", "off"])]
        state: String,
    },
}

/// Plays a role until it is told to stop.
pub fn run(args: AppArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let role = async {
            match args.role {
                Role::Web { port, front } => front::web(any(port), front).await,
                Role::Front {
                    port,
                    colour,
                    tally,
                } => front::front(any(port), colour, tally).await,
                Role::Colour {
                    port,
                    release,
                    delay_ms,
                } => {
                    let delay = std::time::Duration::from_millis(delay_ms);
                    colour::serve(any(port), release, delay).await
                }
                Role::Tally { port } => tally::serve(any(port)).await,
                Role::Load { target, rate } => load::run(target, rate).await,
                Role::Fail { state } => colour::order(&state).await,
            }
        };
        tokio::select! {
            done = role => done,
            _ = terminated() => Ok(()),
        }
    })
}

/// A service leaves a moment after it is asked to, so that what is under way ends well.
async fn terminated() {
    if let Ok(mut signal) =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
    {
        signal.recv().await;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    } else {
        std::future::pending::<()>().await;
    }
}
