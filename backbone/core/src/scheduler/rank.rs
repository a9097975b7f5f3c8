//! Which of several fitting nodes is best.
//!
//! | policy | the weightiest first |
//! |---|---|
//! | `cheapest` | nothing of the model to pull; price per hour; minimum; model in memory, image there |
//! | `fastest` | model in memory, then on disk, then to pull, or image there; newest GPUs; least of the node reserved; price per hour; minimum |
//! | `spread` | nothing of the model to pull; least of the node reserved; price per hour; minimum; model in memory, image there |
//!
//! Before all of it come nodes that have not failed the job; after it the name, so that ties end the same way every time.
//! A model that must be pulled weighs more than any price: that takes minutes, where loading it takes seconds. What `fastest`
//! goes by is known, not measured: nobody has timed the nodes. New is told by the GPUs' compute capability.
//!
//! **What is taken from a node never makes it a better one**, for no policy: [`super::shortlist`] relies on it.

use modchain_types::{ModelPlace, Offer, Policy};

use super::amounts::Amounts;
use super::feasible::{self, Fit};
use super::needs::Needs;
use crate::node::Node;

/// What nodes are compared by, the weightiest first; smaller is better. Those of different needs cannot be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Score([u64; 5]);

/// The score of a node that fits.
pub fn score(node: &Node, needs: &Needs, fit: &Fit) -> Score {
    let offer = node.offer.as_deref();
    let model = needs.requirements.model.as_ref();
    let place = model.and_then(|model| offer.and_then(|offer| offer.capabilities.place_of(model)));
    let pulls = u64::from(place == Some(ModelPlace::Pull));
    // A job asks for a model or for an image, never for both.
    let cold = u64::from(place == Some(ModelPlace::Cold));
    let cold = cold + u64::from(needs.image.is_some_and(|image| !offer.is_some_and(|offer| offer.has_image(image))));
    let (price, minimum) = (fit.price_per_hour.0, fit.minimum.0);
    match needs.policy {
        Policy::Cheapest => Score([pulls, price, minimum, cold, 0]),
        Policy::Fastest => {
            let old = u64::MAX - offer.map_or(0, |offer| newness(offer, fit));
            Score([2 * pulls + cold, old, reserved(node, fit), price, minimum])
        }
        Policy::Spread => Score([pulls, reserved(node, fit), price, minimum, cold]),
    }
}

/// Which part of the node would be reserved with the job on it.
fn reserved(node: &Node, fit: &Fit) -> u64 {
    let Some(offer) = &node.offer else { return 0 };
    Amounts::from(&node.taken).plus((&fit.reservation).into()).part_of(&(&offer.capabilities).into())
}

/// How new the chosen GPUs are, all together.
fn newness(offer: &Offer, fit: &Fit) -> u64 {
    let chosen = |uuid: &str| fit.reservation.gpus.iter().any(|(taken, _)| **taken == *uuid);
    let gpus = offer.capabilities.gpus.iter().filter(|gpu| chosen(&gpu.uuid));
    gpus.map(feasible::generation).sum()
}
