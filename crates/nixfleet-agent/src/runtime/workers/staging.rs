//! Stages one target at a time; a newer one takes the place of what goes on.
//!
//! On a thread of its own, so that it is at nobody's cost: a closure is hashed and a file system synced here.

use std::io;
use std::sync::Arc;

use nixfleet_core::host::Event;
use nixfleet_core::host::effect::StageOrder;
use tokio::sync::{mpsc, watch};

use crate::activation::ActivationBackend;
use crate::activation::staging::stage;
use crate::activation::types::Observer;
use crate::runtime::input::Input;
use crate::runtime::one_thread;

/// The way to the worker.
#[derive(Debug)]
pub struct Staging(watch::Sender<Option<StageOrder>>);

impl Staging {
    /// Starts the worker's thread. It ends with the process.
    pub fn start<B: ActivationBackend + Send + 'static>(
        backend: Arc<B>,
        voice: Arc<dyn Observer>,
        inputs: mpsc::Sender<Input>,
    ) -> io::Result<Self> {
        let (orders, mine) = watch::channel(None);
        let runtime = one_thread()?;
        std::thread::Builder::new().name("staging".to_owned()).spawn(move || {
            runtime.block_on(work(&*backend, mine, &voice, &inputs));
        })?;
        Ok(Self(orders))
    }

    /// Begins, in place of what goes on. Ends in `TargetStaged` or `StageFailed`.
    pub fn begin(&self, order: StageOrder) {
        self.0.send_replace(Some(order));
    }
}

async fn work<B: ActivationBackend>(
    backend: &B,
    mut orders: watch::Receiver<Option<StageOrder>>,
    voice: &Arc<dyn Observer>,
    inputs: &mpsc::Sender<Input>,
) {
    // Closed: the reducer is gone, and so are we in a moment.
    while orders.changed().await.is_ok() {
        let Some(order) = orders.borrow_and_update().clone() else { continue };
        let told = tokio::select! {
            // Cut off, its fetch ends with it; what had come stays in the store. The loop takes the newer order.
            newer = orders.changed() => match newer {
                Ok(()) => { orders.mark_changed(); continue }
                Err(_) => return,
            },
            staged = stage(backend, &order, voice) => told(order, staged),
        };
        if inputs.send(Input::Told(told)).await.is_err() {
            return;
        }
    }
}

fn told(order: StageOrder, staged: Result<(), nixfleet_core::activation::outcome::Failure>) -> Event {
    let release = order.release;
    match staged {
        Ok(()) => Event::TargetStaged { release },
        Err(failure) => Event::StageFailed { release, failure },
    }
}
