//! The node's promises, a file each, against the running program and real peers. One test program, because each further
//! one would be linked anew.

mod support;

mod alarm;
mod architecture;
mod associate;
mod attacks;
mod boxes;
mod commands;
mod commitment;
mod compare;
mod database;
mod dependencies;
mod differential;
mod documents;
mod durable;
mod escalation;
mod faults;
mod fuzz;
mod gpu;
mod hostile;
mod lineage;
mod login;
mod mail;
mod notify;
mod oidc;
mod openapi;
mod orthanc;
mod pacs;
mod pages;
mod peers;
mod pictures;
mod pixels;
mod receive;
mod rescore;
mod retention;
mod scores;
mod send;
mod shadow;
mod skips;
mod start;
mod starve;
mod tls;
mod turns;
mod verdicts;
mod web;
