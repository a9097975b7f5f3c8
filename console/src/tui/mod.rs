//! The terminal console: what `modchain` shows when it is called without a command.
//!
//! Elm's shape: [`update()`] takes a [`Msg`] into the [`App`] and says which [`Effect`]s follow, [`view::draw`] paints the [`App`]. Neither
//! reads a clock, a file, a socket or a lock; [`runtime`] does, and is the only loop. It blocks until something happens and
//! draws only then, so a console that nobody looks at costs nothing.
//!
//! Reading order: [`app`] (the state), [`msg`] (what comes in and goes out), [`keys`] (the one table of keys), [`mod@update`], [`table`]
//! (tables of anything), [`layout`], [`view`], [`runtime`].

mod act;
mod app;
mod command;
mod filter;
mod glyphs;
mod keyboard;
pub(crate) mod keys;
mod layout;
#[cfg(debug_assertions)]
mod mishap;
mod msg;
mod remember;
mod runtime;
mod table;
mod terminal;
mod theme;
mod update;
mod view;

#[cfg(test)]
mod tests;

pub(crate) use runtime::{Settings, run};
pub(crate) use theme::ThemeName;

use app::App;
use msg::{Effect, Msg};
use update::update;
