//! Both ends, the path between them, and time.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use ssmssh::{
    datachannel::{CloseReason, Config, DataChannel, Stats, Transmit},
    wire::{Body, ChannelClosed, Message, MessageKind, PayloadType},
};
use uuid::Uuid;

use crate::{
    agent::{self, Agent},
    app::{self, App},
    link::{Link, Profile},
    rng::Rng,
    watch::Watch,
};

/// From the agent's end to the service's notice of it.
const NOTICE_DELAY: Duration = Duration::from_millis(50);

/// The upload is judged from here on.
const WARM_UP: Duration = Duration::from_secs(2);

/// One kind of run.
#[derive(Clone)]
pub(crate) struct Scenario {
    pub(crate) up: Profile,
    pub(crate) down: Profile,
    pub(crate) app: app::Options,
    pub(crate) agent: agent::Options,
    pub(crate) config: Config,
    pub(crate) outages: Vec<Outage>,
    /// The goal is everything written and read, the flag acknowledged and the end announced, within this.
    pub(crate) limit: Duration,
}

/// The path is gone for a while, and everything on its way is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outage {
    /// From the start, or the end of the outage before.
    pub(crate) after: Duration,
    pub(crate) lasts: Duration,
    /// Whether the client's WebSocket breaks, or only the relay or the agent's side swallows everything.
    pub(crate) is_noticed: bool,
}

/// How a run went.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) took: Duration,
    pub(crate) resent: usize,
    /// Frames that the path has lost, both ways.
    pub(crate) lost: usize,
    pub(crate) stats: Stats,
    pub(crate) upload: Upload,
}

/// How the upload went once it was under way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Upload {
    /// Bytes that have reached the agent's port, before and in all, and when.
    warm: Option<(usize, Instant)>,
    last: Option<(usize, Instant)>,
    /// The longest that a byte took from the writer to the port.
    pub(crate) latest: Duration,
}

impl Upload {
    /// Bytes a second.
    pub(crate) fn goodput(&self) -> f64 {
        let (Some((warm, since)), Some((last, at))) = (self.warm, self.last) else { return 0.0 };
        f64::from(u32::try_from(last - warm).expect("a run is short")) / (at - since).as_secs_f64()
    }
}

impl Scenario {
    /// Runs with every seed; the first failure is reported with its seed.
    pub(crate) fn run_seeds(&self, seeds: impl IntoIterator<Item = u64>) {
        for seed in seeds {
            self.run(seed);
        }
    }

    pub(crate) fn run(&self, seed: u64) -> Outcome {
        let mut world = World::new(self, seed);
        let result = catch_unwind(AssertUnwindSafe(|| world.run(self.limit)));
        let violation = match result {
            Ok(Ok(outcome)) => return outcome,
            Ok(Err(violation)) => violation,
            Err(_) => "panic".into(),
        };
        panic!("seed {seed} after {:?}: {violation}; {:?}", world.now - world.start, world.client.stats())
    }
}

struct World {
    start: Instant,
    now: Instant,
    rng: Rng,
    client: DataChannel,
    app: App,
    agent: Agent,
    up: Link,
    down: Link,
    watch: Watch,
    upload: Upload,
    /// Bytes written in all, and when, until they reach the port.
    under_way: VecDeque<(usize, Instant)>,
    outages: VecDeque<Outage>,
    is_up: bool,
    next_switch: Option<Instant>,
    notice_at: Option<Instant>,
}

impl World {
    fn new(scenario: &Scenario, seed: u64) -> Self {
        let start = Instant::now();
        let mut world = Self {
            start,
            now: start,
            rng: Rng::new(seed),
            client: DataChannel::new(scenario.config.clone(), seed, start, SystemTime::UNIX_EPOCH),
            app: App::new(scenario.app),
            agent: Agent::new(scenario.agent, start),
            up: Link::new(scenario.up),
            down: Link::new(scenario.down),
            watch: Watch::new(&scenario.config),
            upload: Upload::default(),
            under_way: VecDeque::new(),
            outages: scenario.outages.clone().into(),
            is_up: true,
            next_switch: None,
            notice_at: None,
        };
        world.client.handle_connected("token", start);
        world.next_switch = scenario.outages.first().map(|outage| start + outage.after);
        world
    }

    fn run(&mut self, limit: Duration) -> Result<Outcome, String> {
        let end = self.start + limit;
        while self.app.closed.is_none() {
            self.settle()?;
            self.now = self.next_moment().filter(|next| *next <= end).ok_or_else(|| self.stall())?;
            self.happen()?;
        }
        if self.app.closed != Some(CloseReason::Ended) || !self.app.is_done() {
            return Err(format!("the end came too early: {:?}, {}", self.app.closed, self.stall()));
        }
        Ok(Outcome {
            took: self.now - self.start,
            resent: self.watch.resent,
            lost: self.up.lost + self.down.lost,
            stats: self.client.stats(),
            upload: self.upload,
        })
    }

    fn stall(&self) -> String {
        let App { written, read, is_finished, .. } = self.app;
        format!("no end in sight: {written} written, {read} read, finished: {is_finished}")
    }

    /// Lets both ends act upon what they know, until they have nothing left to do at this moment.
    fn settle(&mut self) -> Result<(), String> {
        loop {
            while let Some(event) = self.client.poll_event() {
                self.app.handle_event(event);
            }
            let written = self.app.written;
            self.app.act(&mut self.client, self.now, &mut self.rng)?;
            if self.app.written > written {
                self.under_way.push_back((self.app.written, self.now));
            }
            self.drain()?;
            self.watch.after_drain(&self.client, self.app.read, self.now)?;
            if !self.app.has_more_to_write() {
                return Ok(());
            }
        }
    }

    fn drain(&mut self) -> Result<(), String> {
        while let Some(transmit) = self.client.poll_transmit(self.now) {
            self.watch.client_sends(&transmit, self.now)?;
            if let Transmit::Binary(frame) = &transmit
                && self.is_up
            {
                self.up.send(frame, self.now, &mut self.rng);
            }
        }
        while let Some(frame) = self.agent.poll_transmit() {
            if self.is_up {
                self.down.send(&frame, self.now, &mut self.rng);
            }
        }
        Ok(())
    }

    fn next_moment(&self) -> Option<Instant> {
        let down = self.down.next_arrival().filter(|_| !self.client.is_inbox_full());
        let moments = [
            down,
            self.up.next_arrival(),
            self.client.poll_timeout(),
            self.agent.next_timeout(),
            self.app.next_timeout(),
            self.next_switch,
            self.notice_at.filter(|_| self.is_up),
        ];
        moments.into_iter().flatten().min().map(|next| next.max(self.now))
    }

    /// Everything that is due at this moment.
    fn happen(&mut self) -> Result<(), String> {
        if self.next_switch.is_some_and(|at| at <= self.now) {
            if self.is_up { self.begin_outage() } else { self.end_outage() }
        }
        while let Some(frame) = self.up.receive(self.now) {
            self.agent.handle_frame(frame, self.now)?;
        }
        self.note_upload();
        while !self.client.is_inbox_full()
            && let Some(frame) = self.down.receive(self.now)
        {
            self.watch.client_receives(&frame, self.now);
            self.client.handle_frame(frame, self.now).map_err(|error| error.to_string())?;
        }
        self.client.handle_timeout(self.now).map_err(|error| error.to_string())?;
        self.agent.handle_timeout(self.now)?;
        self.announce_end();
        Ok(())
    }

    fn note_upload(&mut self) {
        let received = self.agent.received;
        if received == 0 || self.now < self.start + WARM_UP {
            self.under_way.clear();
            return;
        }
        self.upload.warm.get_or_insert((received, self.now));
        if self.upload.last.is_none_or(|(last, _)| last < received) {
            self.upload.last = Some((received, self.now));
        }
        while let Some((_, at)) = self.under_way.pop_front_if(|(offset, _)| *offset <= received) {
            self.upload.latest = self.upload.latest.max(self.now - at);
        }
    }

    fn begin_outage(&mut self) {
        let Some(outage) = self.outages.front() else { return };
        self.is_up = false;
        self.up.cut();
        self.down.cut();
        if outage.is_noticed {
            self.client.handle_disconnected(self.now);
        }
        self.next_switch = Some(self.now + outage.lasts);
    }

    fn end_outage(&mut self) {
        let outage = self.outages.pop_front();
        self.is_up = true;
        if outage.is_some_and(|outage| outage.is_noticed) {
            self.client.handle_connected("token", self.now);
        }
        self.next_switch = self.outages.front().map(|outage| self.now + outage.after);
    }

    /// The service tells the client of the agent's end, once, when it is there to be told.
    fn announce_end(&mut self) {
        if self.agent.is_gone() && self.notice_at.is_none() {
            self.notice_at = Some(self.now + NOTICE_DELAY);
        }
        if self.is_up && self.notice_at.is_some_and(|at| at <= self.now) {
            let body = ChannelClosed::default().to_payload();
            let _ = self.client.handle_frame(service_message(MessageKind::ChannelClosed, body), self.now);
            while let Some(event) = self.client.poll_event() {
                self.app.handle_event(event);
            }
        }
    }
}

fn service_message(kind: MessageKind, payload: Bytes) -> Bytes {
    let (id, payload_type) = (Uuid::nil(), PayloadType::Other(261));
    Message { kind, created_millis: 1, sequence: 0, flags: 0, id, payload_type, payload }.encode()
}
