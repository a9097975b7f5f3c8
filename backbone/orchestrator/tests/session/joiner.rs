//! Joining a [`World`].

use std::time::SystemTime;

use modchain_certs::{Authority, Credentials, JoinToken, KeyRequest, RootPin};
use modchain_orchestrator::init::authority_dir;
use modchain_types::Role;
use modchain_wire::join::JoinAccept;

pub(crate) use crate::peers::joiner::*;

use super::world::{Console, World};

/// What a joiner has in the end; takes nothing that is not what it asked for.
pub(crate) fn credentials(key: KeyRequest, root: &JoinToken, accept: &JoinAccept, world: &World) -> Credentials {
    let chain = accept.chain.iter().map(|der| der.to_vec().into()).collect();
    let authority = world.authority();
    assert_eq!(RootPin::of_root(authority.root()).expect("a root"), root.root());
    let (role, id) = (accept.identity.role, accept.identity.id);
    key.accept(chain, authority.root().clone(), role, id, now()).expect("a certificate that can be used")
}

impl World {
    pub(crate) fn authority(&self) -> Authority {
        Authority::load(&authority_dir(&self.place()), SystemTime::now()).expect("the authority")
    }

    /// A token that nobody has told the orchestrator of yet.
    pub(crate) fn draw(&self, role: Role) -> JoinToken {
        JoinToken::generate(role, RootPin::of_root(self.authority().root()).expect("a root")).expect("a token")
    }

    /// Joins honestly.
    pub(crate) async fn join(&self, token: &JoinToken) -> (JoinAccept, Credentials) {
        let key = KeyRequest::generate();
        let accept = Joiner::new(token, &key).join(&self.join_address).await.accepted();
        let credentials = credentials(key, token, &accept, self);
        (accept, credentials)
    }
}

impl Console {
    /// A token with nothing special, known to the orchestrator.
    pub(crate) async fn token(&self, world: &World, role: Role) -> JoinToken {
        let token = world.draw(role);
        self.make(wish(&token)).await.expect("a token");
        token
    }
}
