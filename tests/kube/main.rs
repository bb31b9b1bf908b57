//! A Kubernetes API server by hand, the one of the cases: says where its kubeconfig is, and ends with its standard input.
//!
//! ```sh
//! cargo run -p weft-tests --bin apiserver     # then, elsewhere: export KUBECONFIG=…; kubectl get namespaces
//! ```

use harness::kube::Kube;

fn main() -> anyhow::Result<()> {
    let kube = Kube::up()?;
    println!("export KUBECONFIG={}", kube.kubeconfig().display());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}
