//! One direction of a session's relay: from one side's reader, over a faulty link, to the other side's slot.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::socket::Slot;
use crate::{
    faults::{Faults, Link},
    tasks::Tasks,
};

/// Messages between a reader and the link.
const QUEUE: usize = 64;
/// Messages on the link before the reader must wait; a second of what an agent can send, at any delay.
const MAX_WAITING: usize = 20_000;

/// The way into the pipe. The pipe ends after [`finish`](Self::finish), or when every `Pipe` is dropped.
#[derive(Debug)]
pub(crate) struct Pipe {
    items: mpsc::Sender<Item>,
    tasks: Tasks,
}

#[derive(Debug)]
enum Item {
    Relay(Bytes),
    Last(Bytes),
}

impl Pipe {
    pub(crate) fn new(tasks: &Tasks, direction: u64, faults: watch::Receiver<Faults>, to: Arc<Slot>) -> Self {
        let (sender, items) = mpsc::channel(QUEUE);
        let link = Link::new(faults.borrow().seed, direction);
        tasks.spawn(run(items, link, faults, to));
        Self { items: sender, tasks: tasks.clone() }
    }

    /// Relays a message; waits while the pipe is full.
    pub(crate) async fn relay(&self, message: Bytes) {
        let _ = self.items.send(Item::Relay(message)).await;
    }

    /// Sends the service's last message after all that is on its way, then closes the socket behind it.
    /// Whoever ends a session does not wait for a peer that reads no more.
    pub(crate) fn finish(&self, message: Bytes) {
        let items = self.items.clone();
        self.tasks.spawn(async move {
            let _ = items.send(Item::Last(message)).await;
        });
    }
}

async fn run(mut items: mpsc::Receiver<Item>, mut link: Link, faults: watch::Receiver<Faults>, to: Arc<Slot>) {
    let mut finished = false;
    loop {
        while let Some(message) = link.pop_due(Instant::now()) {
            to.deliver(message).await;
        }
        if finished && link.len() == 0 {
            return to.close();
        }
        let room_at = link.room_at(&faults.borrow(), Instant::now());
        let due = [link.next_due(), room_at].into_iter().flatten().min();
        let has_room = room_at.is_none() && link.len() < MAX_WAITING;
        tokio::select! {
            item = items.recv(), if !finished && has_room => match item {
                Some(Item::Relay(message)) => link.push(message, &faults.borrow(), Instant::now()),
                Some(Item::Last(message)) => {
                    link.push_last(message, &faults.borrow(), Instant::now());
                    finished = true;
                }
                None => finished = true,
            },
            () = sleep_until(due) => {}
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
