//! The way of the input into a container.
//!
//! The engine takes it over a connection of its own, and holds that open until the container has ended. Where it breaks
//! sooner, as when the engine is started anew, nobody can hand over the rest: the attempt is then the node's fault, unless all of
//! the input was with the engine already.

use bollard::container::AttachContainerResults;
use bollard::models::ContainerStateStatusEnum;
use bollard::query_parameters::AttachContainerOptions;
use futures::StreamExt;
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio::sync::{oneshot, watch};
use tokio_util::task::AbortOnDropHandle;

use super::engine::{Engine, Trouble};

/// What the container is to read.
pub(super) struct Input {
    pub(super) bytes: DuplexStream,
    /// Is told once the engine has all of them and their end.
    pub(super) handed_over: oneshot::Sender<()>,
}

/// The handing over of it.
pub(super) struct Feeding {
    /// Holds the connection.
    _task: AbortOnDropHandle<()>,
    fate: watch::Receiver<Fate>,
}

/// What becomes of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is with the engine, on its way there, or of no use to a container that has ended.
    Fine,
    /// Its connection broke, and the container is being looked at.
    Unknown,
    /// The container goes on without the rest of it.
    Lost,
}

impl Feeding {
    /// Hands the input over to the container, which is not started yet, so that it misses none.
    pub(super) async fn attach(engine: &Engine, name: &str, input: Input) -> Result<Self, Trouble> {
        let (docker, _) = engine.docker().await?;
        let options = AttachContainerOptions { stdin: true, stream: true, ..AttachContainerOptions::default() };
        let attached = match docker.attach_container(name, Some(options)).await {
            Ok(attached) => attached,
            Err(error) => return Err(engine.trouble(error).await),
        };
        let AttachContainerResults { output: mut from_engine, input: mut to_engine } = attached;
        let Input { mut bytes, handed_over } = input;
        let (engine, name) = (engine.clone(), name.to_owned());
        let (fate_in, fate) = watch::channel(Fate::Fine);
        let task = tokio::spawn(async move {
            let hand_over = async {
                tokio::io::copy(&mut bytes, &mut to_engine).await?;
                to_engine.shutdown().await
            };
            let end = async { while let Some(Ok(_)) = from_engine.next().await {} };
            tokio::pin!(end);
            let all = tokio::select! {
                biased;
                () = &mut end => false,
                all = hand_over => all.is_ok(),
            };
            // Who does not read any more takes no input: dropping ours tells the shell.
            drop(bytes);
            if all {
                // The shell may have gone.
                let _ = handed_over.send(());
                end.await;
            } else {
                fate_in.send_replace(Fate::Unknown);
                let fate = if goes_on(&engine, &name).await { Fate::Lost } else { Fate::Fine };
                fate_in.send_replace(fate);
            }
        });
        Ok(Self { _task: AbortOnDropHandle::new(task), fate })
    }

    /// Waits until some is known to be lost: for ever if none is.
    pub(super) async fn lost(&mut self) {
        if self.fate.wait_for(|fate| *fate == Fate::Lost).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether some is lost. To be asked after the container's end. Nothing is while the connection is there: some engines keep it
    /// for as long as there may be more input, though nobody is left to read it.
    pub(super) async fn is_lost(&mut self) -> bool {
        self.fate.wait_for(|fate| *fate != Fate::Unknown).await.is_ok_and(|fate| *fate == Fate::Lost)
    }
}

/// Whether a container has not ended though the connection that it gets its input over has. The engine holds that until the
/// end, whether the input is read or not, so then it was lost to something else.
async fn goes_on(engine: &Engine, name: &str) -> bool {
    match engine.inspect(name).await {
        Ok(Some(container)) => {
            use ContainerStateStatusEnum::{DEAD, EXITED, REMOVING};
            let status = container.state.and_then(|state| state.status);
            !matches!(status, Some(EXITED | DEAD | REMOVING))
        }
        Ok(None) => false,
        // The engine is on its way out, and what it would say of the container's end is not heard either.
        Err(_) => true,
    }
}
