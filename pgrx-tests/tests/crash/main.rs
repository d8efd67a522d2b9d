//! Every process can die at every step. Afterwards the table answers exactly, each job goes on or has
//! rolled back by itself, the story can be told to its end, and nothing is left behind.

mod interrupted;
mod points;
mod resize;
