//! The application's page for a browser on this machine. The mesh has no way in from outside; a connection is made from
//! the load generator's pod, which is allowed to call the page, and handed out of the node.

use super::manifests::NAMESPACE;
use crate::local::Client;
use anyhow::Context;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Connections served at once; a browser opens half a dozen.
const MOST: usize = 64;

/// Serves the page on loopback until the program ends; tells where.
pub(super) fn serve(client: &Client) -> anyhow::Result<SocketAddr> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen on loopback")?;
    let address = listener.local_addr()?;
    let client = client.clone();
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::spawn(move || {
        for browser in listener.incoming().flatten() {
            if open.fetch_add(1, Relaxed) >= MOST {
                open.fetch_sub(1, Relaxed);
                continue;
            }
            let (client, open) = (client.clone(), open.clone());
            std::thread::spawn(move || {
                let _ = dial(&client).and_then(|web| Ok(copy_both(browser, web)?));
                open.fetch_sub(1, Relaxed);
            });
        }
    });
    Ok(address)
}

fn dial(client: &Client) -> anyhow::Result<TcpStream> {
    let pods = client.pods()?;
    let load = pods
        .iter()
        .find(|pod| pod.service_account == "load" && !pod.deleting);
    let load = load.context("the load generator does not run")?;
    let services = client.services()?;
    let web = services
        .iter()
        .find(|service| service.namespace == NAMESPACE && service.name == "web");
    let web: IpAddr = *web
        .and_then(|web| web.cluster_ips.first())
        .context("there is no Service web")?;
    client.dial(Some((NAMESPACE, &load.name)), (web, 8080).into())
}

fn copy_both(browser: TcpStream, web: TcpStream) -> io::Result<()> {
    let (mut from_browser, mut to_web) = (browser.try_clone()?, web.try_clone()?);
    let asked = std::thread::spawn(move || {
        let _ = io::copy(&mut from_browser, &mut to_web);
        let _ = to_web.shutdown(Shutdown::Write);
    });
    let (mut from_web, mut to_browser) = (web, browser);
    let _ = io::copy(&mut from_web, &mut to_browser);
    let _ = to_browser.shutdown(Shutdown::Both);
    let _ = asked.join();
    Ok(())
}
