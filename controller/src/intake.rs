//! What the doors (HTTP, dashboard) hold of the heart: the last published data to read, and a way to ask for something.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

use crate::view::{Ask, Published, Reply};

/// Handle for the doors; cheap to clone.
#[derive(Clone, Debug)]
pub struct Intake {
    /// The last cycle's data.
    pub published: watch::Receiver<Arc<Published>>,
    asks: mpsc::Sender<Asked>,
}

/// A request on its way to the reconcile loop.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub ask: Ask,
    /// Where the reply goes.
    pub reply: oneshot::Sender<Reply>,
}

impl Intake {
    /// The handle, the sender for the publisher and the receiver for the reconcile loop.
    pub fn channel() -> (Intake, watch::Sender<Arc<Published>>, mpsc::Receiver<Asked>) {
        let (publish, published) = watch::channel(Arc::new(Published::default()));
        let (asks, asked) = mpsc::channel(16);
        (Intake { published, asks }, publish, asked)
    }

    /// Hands `ask` to the reconcile loop and waits for its reply, which comes within a cycle.
    pub async fn ask(&self, ask: Ask) -> Reply {
        let refused = |message: &str| Reply::refused(message);
        let (reply, replied) = oneshot::channel();
        if self.asks.try_send(Asked { ask, reply }).is_err() {
            return refused("the controller has too many requests waiting; try again in a moment");
        }
        match tokio::time::timeout(std::time::Duration::from_secs(15), replied).await {
            Ok(Ok(reply)) => reply,
            _ => refused("the controller did not answer within 15 s; look at its status before asking again"),
        }
    }
}
