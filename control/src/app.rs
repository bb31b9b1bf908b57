//! Starts the controller.
