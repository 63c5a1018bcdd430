//! A module for each page: see build.rs.
#![cfg(doctest)]

include!(concat!(env!("OUT_DIR"), "/pages.rs"));
