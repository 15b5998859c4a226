//! The program as its users meet it. One binary, so that everything links once.

mod bench;
mod cache;
mod cli;
mod collection;
mod curate;
mod dedup;
mod demo;
mod index;
mod key;
mod probe;
mod search;
mod serve;
mod support;
mod tidy;
mod training;
