//! The promises of training, a file each, against the program and the library. One test program, because each further
//! one would be linked anew.

mod support;

mod ablate;
mod average;
mod bad_input;
mod cross_validation;
mod ensemble;
mod heat_map;
mod m11;
mod pipeline;
mod quantize;
mod quick_eval;
mod recalibrate;
mod recipes;
mod report;
mod rsna_files;
mod sequence;
