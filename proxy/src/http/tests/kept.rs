//! Connections kept for later requests, by several pools that share a limit.

use super::super::client::Client;
use super::super::kept::{Kept, MostKept};
use super::*;

/// Pools of one worker that may keep so many.
struct Pools {
    metrics: Arc<Metrics>,
    kept: Arc<Kept>,
}

impl Pools {
    fn keeping(most: usize) -> Self {
        let metrics = Metrics::new("test");
        let most = MostKept { most, workers: 1 };
        let kept = Kept::new(&metrics, most);
        Self { metrics, kept }
    }

    /// One more endpoint.
    fn pool(&self, version: HttpVersion) -> Client {
        Client::keeping(&self.kept, move |_| {
            let (ours, theirs) = duplex(1 << 16);
            let (drain, watch) = Drain::new();
            let service = HttpService::new(service_fn(echo));
            tokio::spawn(async move {
                let _keep = drain;
                server::serve(Io::Memory(theirs), version, service, connection(), watch).await
            });
            Ok(Io::Memory(ours))
        })
    }

    fn closed(&self) -> u64 {
        self.metrics.kept_closed().get()
    }
}

async fn ask(client: &Client, version: http::Version) {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "http://w/".parse().unwrap();
    *request.version_mut() = version;
    let answer = HttpService::new(client.clone()).send(request).await;
    answer.unwrap().into_body().collect().await.unwrap();
}

#[tokio::test]
async fn beyond_the_limit_the_one_not_used_for_longest_is_closed() {
    for (version, codec) in [
        (http::Version::HTTP_11, HttpVersion::Http1),
        (http::Version::HTTP_2, HttpVersion::Http2),
    ] {
        let pools = Pools::keeping(20);
        let clients: Vec<_> = (0..60).map(|_| pools.pool(codec)).collect();
        for client in &clients {
            ask(client, version).await;
            // The first is used all the time.
            ask(&clients[0], version).await;
        }
        let open = |client: &Client| client.counts().0 + client.counts().1;
        let counts: Vec<_> = clients.iter().map(open).collect();
        assert_eq!(counts.iter().sum::<usize>(), 20, "{codec:?} {counts:?}");
        assert_eq!(counts[0], 1, "{codec:?} {counts:?}");
        assert_eq!(counts[41..], [1; 19], "{codec:?} {counts:?}");
        // None was closed to be opened again.
        assert_eq!((pools.metrics.kept().total(), pools.closed()), (20, 40));
        drop(clients);
        assert_eq!(pools.metrics.kept().total(), 0);
    }
}

#[tokio::test]
async fn where_nothing_may_be_kept_every_request_is_served_nevertheless() {
    for (version, codec) in [
        (http::Version::HTTP_11, HttpVersion::Http1),
        (http::Version::HTTP_2, HttpVersion::Http2),
    ] {
        let pools = Pools::keeping(0);
        let client = pools.pool(codec);
        for _ in 0..20 {
            ask(&client, version).await;
        }
        assert!(pools.metrics.kept().total() <= 1);
    }
}
