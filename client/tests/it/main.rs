//! The client against small real servers, made in each test, on ports that the system chooses.

mod frames;
mod http;
mod reconnect;
mod runs;
mod servers;
mod websocket;
