//! What speaks against running a job on a node now.

use std::cmp::Reverse;
use std::fmt;

use modchain_types::{
    Adapter, Exceptions, GpuInfo, List, Micro, NodeState, Offer, Policy, Reason, Reservation, Span, Timestamp,
};

use super::needs::Needs;
use crate::meter;
use crate::node::{Node, Taken};

/// The shortest run that is worth placing a job for.
pub const RUN_MIN: Span = Span::from_millis(100);

/// A job on a node: what it would hold there and what that means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fit {
    /// What it would hold.
    pub reservation: Reservation,
    /// What that costs per hour.
    pub price_per_hour: Micro,
    /// The least that it costs once it ran.
    pub minimum: Micro,
    /// Longest run.
    pub run_limit: Span,
    /// What reaching it means.
    pub run_limit_reason: Reason,
}

/// One thing that speaks against a node. Shown to people as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfit {
    /// Its identity was revoked.
    Revoked,
    /// It never connected.
    NeverSeen,
    /// It is silent.
    Silent(NodeState, Span),
    /// Its connection is gone.
    NotConnected,
    /// It refused or failed an attempt a moment ago.
    CoolingDown,
    /// It is not the node asked for.
    OtherNode,
    /// It has no such executor.
    NoAdapter(Adapter),
    /// It takes no new jobs, by somebody's wish.
    Closed(NodeState),
    /// It does not hold the language model, and its owner does not let it be pulled.
    NoModel(String),
    /// Its owner allows containers no such exception.
    NoException(&'static str),
    /// Its container engine gives containers no GPUs.
    NoContainerGpus,
    /// A label differs.
    Label(String, String),
    /// It is elsewhere.
    Region(String),
    /// Never big enough: asked, there is.
    TooSmall(&'static str, Amount, Amount),
    /// Big enough, but not free: asked, free.
    Occupied(&'static str, Amount, Amount),
    /// Too few matching GPUs in all: asked, there are.
    Gpus(u32, u32),
    /// It asks more per hour than the job's price cap.
    PriceCap(Micro, Micro),
    /// Its minimum is above the job's maximum cost.
    Minimum(Micro, Micro),
    /// The maximum cost buys next to no time.
    BuysNothing(Micro, Span),
}

/// How much of something there is. Made into words only when somebody reads it: passes over the queue look and throw away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// A number of things.
    Count(u64),
    /// Thousandths of a core.
    CpuMilli(u64),
    /// Bytes.
    Bytes(u64),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match *self {
            Self::Count(count) => write!(f, "{count}"),
            Self::CpuMilli(milli) => write!(f, "{}", Decimal(milli)),
            Self::Bytes(bytes) => match UNITS.iter().find(|(size, _)| bytes >= *size) {
                Some((size, unit)) => {
                    let thousandths = u128::from(bytes) * 1_000 / u128::from(*size);
                    write!(f, "{} {unit}", Decimal(u64::try_from(thousandths).unwrap_or(u64::MAX)))
                }
                None => write!(f, "{bytes} B"),
            },
        }
    }
}

impl Unfit {
    /// Whether waiting can help: what is occupied becomes free, who is silent comes back.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NeverSeen
            | Self::Silent(..)
            | Self::Closed(_)
            | Self::NotConnected
            | Self::CoolingDown
            | Self::Occupied(..)
            // A container engine or a model server that is away comes back.
            | Self::NoAdapter(Adapter::Docker | Adapter::Llm) => true,
            Self::Revoked
            | Self::OtherNode
            | Self::NoAdapter(Adapter::Wasm | Adapter::Mcp)
            | Self::NoModel(_)
            | Self::NoException(_)
            | Self::NoContainerGpus
            | Self::Label(..)
            | Self::Region(_)
            | Self::TooSmall(..)
            | Self::Gpus(..)
            | Self::PriceCap(..)
            | Self::Minimum(..)
            | Self::BuysNothing(..) => false,
        }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Revoked => write!(f, "it was revoked"),
            Self::NeverSeen => write!(f, "it has never connected"),
            Self::Silent(state, span) => write!(f, "it is {state}: silent for {span}"),
            Self::NotConnected => write!(f, "it is not connected"),
            Self::CoolingDown => write!(f, "it refused or failed an attempt a moment ago"),
            Self::OtherNode => write!(f, "it is not the node asked for"),
            Self::NoAdapter(adapter) => write!(f, "it does not run {adapter} jobs"),
            Self::Closed(state) => write!(f, "it is {state}: it takes no new jobs"),
            Self::NoModel(model) => {
                write!(f, "it does not hold the model {model}, and its owner does not let it be pulled")
            }
            Self::NoException(what) => write!(f, "its owner does not allow containers {what}"),
            Self::NoContainerGpus => write!(f, "its container engine gives containers no GPUs"),
            Self::Label(key, value) => write!(f, "it has no label {key}={value}"),
            Self::Region(region) => write!(f, "it is not in region {region}"),
            Self::TooSmall(what, asked, there) => write!(f, "{what}: {asked} asked, it offers {there}"),
            Self::Occupied(what, asked, free) => write!(f, "{what}: {asked} asked, {free} free now"),
            Self::Gpus(asked, there) => write!(f, "GPUs: {asked} asked, it has {there} that match"),
            Self::PriceCap(price, cap) => write!(f, "price: {price} per hour is over the cap of {cap}"),
            Self::Minimum(minimum, cost) => {
                write!(f, "price: its minimum of {minimum} is over the maximum cost of {cost}")
            }
            Self::BuysNothing(cost, span) => write!(f, "price: the maximum cost of {cost} buys only {span}"),
        }
    }
}

/// What the job would hold on the node, or the first thing that speaks against it.
pub fn fit(node: &Node, now: Timestamp, needs: &Needs) -> Result<Fit, Unfit> {
    let mut first = None;
    let fit = examine(node, now, needs, &mut |unfit| {
        first.get_or_insert(unfit);
    });
    match first {
        Some(unfit) => Err(unfit),
        None => Ok(fit.expect("without a reason against it there is a fit")),
    }
}

/// Tells everything that speaks against the node; the fit is there whenever its GPUs could be chosen and priced, even if
/// something else speaks against it, so that prices can be shown.
pub fn examine(node: &Node, now: Timestamp, needs: &Needs, against: &mut dyn FnMut(Unfit)) -> Option<Fit> {
    if node.revoked {
        against(Unfit::Revoked);
    }
    let Some(offer) = &node.offer else {
        against(Unfit::NeverSeen);
        return None;
    };
    match node.state(now) {
        NodeState::Ready if node.session().is_none() => against(Unfit::NotConnected),
        NodeState::Ready if node.presence.cool_until > now => against(Unfit::CoolingDown),
        NodeState::Ready => {}
        state @ (NodeState::Cordoned | NodeState::Draining | NodeState::Paused) => against(Unfit::Closed(state)),
        state @ (NodeState::Suspect | NodeState::Lost) => against(Unfit::Silent(state, node.silence(now))),
    }
    wants(node, offer, needs, against);
    fill(offer, &node.taken, needs, against)
}

/// What the job would hold on a node of this offer if this much of it were taken, whoever it is and however it is.
pub fn fit_beside(offer: &Offer, taken: &Taken, needs: &Needs) -> Option<Fit> {
    let mut fits = true;
    fill(offer, taken, needs, &mut |_| fits = false).filter(|_| fits)
}

/// Whether the node is one that the job asks for, however much of it is taken.
pub fn wanted(node: &Node, needs: &Needs) -> bool {
    let mut wanted = node.offer.is_some();
    if let Some(offer) = &node.offer {
        wants(node, offer, needs, &mut |_| wanted = false);
    }
    wanted
}

fn fill(offer: &Offer, taken: &Taken, needs: &Needs, against: &mut dyn FnMut(Unfit)) -> Option<Fit> {
    let requirements = &needs.requirements;
    room(offer, taken, needs, against);
    let mut free = free_gpus(offer, taken, needs, against)?;
    let mut with = |order: Policy, against: &mut dyn FnMut(Unfit)| {
        let reservation = Reservation {
            cpu_milli: requirements.cpu_milli,
            memory_bytes: requirements.memory_bytes,
            disk_bytes: requirements.disk_bytes,
            gpus: choose_gpus(&mut free, offer, needs, order),
        };
        price(offer, reservation, needs, against)
    };
    if needs.policy == Policy::Fastest {
        let mut is_affordable = true;
        let fit = with(Policy::Fastest, &mut |_| is_affordable = false);
        if is_affordable {
            return Some(fit);
        }
    }
    // Also for whoever cannot pay for the newest: a node that would do must not be passed by because it has better ones as well.
    Some(with(Policy::Cheapest, against))
}

fn wants(node: &Node, offer: &Offer, needs: &Needs, against: &mut dyn FnMut(Unfit)) {
    let (requirements, capabilities) = (&needs.requirements, &offer.capabilities);
    if requirements.node.as_ref().is_some_and(|name| *name != node.name) {
        against(Unfit::OtherNode);
    }
    if !capabilities.adapters.contains(&requirements.adapter) {
        against(Unfit::NoAdapter(requirements.adapter));
    }
    if let Some(model) = &requirements.model
        && !capabilities.holds(model)
        && !capabilities.may_pull(model)
    {
        against(Unfit::NoModel(model.to_string()));
    }
    let Exceptions { writable_root, network } = requirements.exceptions;
    for (wanted, allowed, what) in [
        (writable_root, capabilities.exceptions.writable_root, "a writable root"),
        (network, capabilities.exceptions.network, "a network"),
    ] {
        if wanted && !allowed {
            against(Unfit::NoException(what));
        }
    }
    if requirements.adapter == Adapter::Docker && requirements.gpus.count > 0 && !capabilities.container_gpus {
        against(Unfit::NoContainerGpus);
    }
    for (key, value) in requirements.labels.iter() {
        if capabilities.labels.get(key) != Some(value) {
            against(Unfit::Label(key.to_string(), value.to_string()));
        }
    }
    if let Some(region) = &requirements.region
        && *region != capabilities.region
    {
        against(Unfit::Region(region.to_string()));
    }
}

fn room(offer: &Offer, taken: &Taken, needs: &Needs, against: &mut dyn FnMut(Unfit)) {
    let (requirements, capabilities) = (&needs.requirements, &offer.capabilities);
    let mut check = |what, asked: u64, there: u64, taken: u64, amount: fn(u64) -> Amount| {
        let free = there.saturating_sub(taken);
        if asked > there {
            against(Unfit::TooSmall(what, amount(asked), amount(there)));
        } else if asked > free {
            against(Unfit::Occupied(what, amount(asked), amount(free)));
        }
    };
    let (cpu_milli, cpu_there) = (u64::from(requirements.cpu_milli), u64::from(capabilities.cpu_milli));
    check("slots", 1, u64::from(capabilities.attempts_max()), u64::from(taken.slots), Amount::Count);
    check("cpus", cpu_milli, cpu_there, taken.cpu_milli, Amount::CpuMilli);
    check("memory", requirements.memory_bytes, capabilities.memory_bytes, taken.memory_bytes, Amount::Bytes);
    check("disk", requirements.disk_bytes, capabilities.disk_bytes, taken.disk_bytes, Amount::Bytes);
}

/// The GPUs that will do and are free, enough of them.
fn free_gpus<'a>(
    offer: &'a Offer,
    taken: &Taken,
    needs: &Needs,
    against: &mut dyn FnMut(Unfit),
) -> Option<Vec<&'a GpuInfo>> {
    let asked = &needs.requirements.gpus;
    if asked.count == 0 {
        return Some(Vec::new());
    }
    let matches = |gpu: &&GpuInfo| {
        let model = asked.model.as_ref().map(|model| model.to_lowercase());
        gpu.memory_bytes >= asked.memory_bytes_min
            && model.is_none_or(|model| gpu.model.to_lowercase().contains(&model))
    };
    let matching: Vec<&GpuInfo> = offer.capabilities.gpus.iter().filter(matches).collect();
    let there = u32::try_from(matching.len()).unwrap_or(u32::MAX);
    if there < asked.count {
        against(Unfit::Gpus(asked.count, there));
        return None;
    }
    let free: Vec<&GpuInfo> = matching.into_iter().filter(|gpu| !taken.gpus.contains(gpu.uuid.as_str())).collect();
    if (free.len() as u64) < u64::from(asked.count) {
        against(Unfit::Occupied("GPUs", Amount::Count(asked.count.into()), Amount::Count(free.len() as u64)));
        return None;
    }
    Some(free)
}

/// As many as the job asks for: the cheapest of what will do, because a client who names no model must not pay for the best. One who
/// wants it fast does.
fn choose_gpus(
    free: &mut [&GpuInfo],
    offer: &Offer,
    needs: &Needs,
    order: Policy,
) -> List<(modchain_types::Text<64>, modchain_types::Text<64>), 64> {
    free.sort_by_cached_key(|gpu| {
        let old = match order {
            Policy::Fastest => Reverse(generation(gpu)),
            Policy::Cheapest | Policy::Spread => Reverse(0),
        };
        (old, meter::gpu_hour(&offer.tariff, &gpu.model), &gpu.uuid)
    });
    let chosen = free.iter().take(needs.requirements.gpus.count as usize);
    List::cut(chosen.map(|gpu| (gpu.uuid.clone(), gpu.model.clone())).collect())
}

/// How new a GPU is: a thousand times its compute capability; 0 where the driver does not tell.
pub(super) fn generation(gpu: &GpuInfo) -> u64 {
    let (major, minor) = gpu.compute.split_once('.').unwrap_or((&gpu.compute, "0"));
    let number = |text: &str| text.parse::<u64>().unwrap_or(0).min(999);
    number(major) * 1_000 + number(minor)
}

fn price(offer: &Offer, reservation: Reservation, needs: &Needs, against: &mut dyn FnMut(Unfit)) -> Fit {
    let tariff = &offer.tariff;
    let price_per_hour = meter::price_per_hour(tariff, &reservation);
    if let Some(cap) = needs.requirements.price_per_hour_max
        && price_per_hour > cap
    {
        against(Unfit::PriceCap(price_per_hour, cap));
    }
    if tariff.minimum > needs.max_cost {
        against(Unfit::Minimum(tariff.minimum, needs.max_cost));
    }
    let (run_limit, run_limit_reason) = meter::run_limit(tariff, &reservation, needs.max_cost, needs.time_limit);
    if run_limit < RUN_MIN && run_limit_reason == Reason::Budget {
        against(Unfit::BuysNothing(needs.max_cost, run_limit));
    }
    Fit { reservation, price_per_hour, minimum: tariff.minimum, run_limit, run_limit_reason }
}

/// Thousandths as a decimal number without trailing zeros.
struct Decimal(u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1_000, self.0 % 1_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}
