"""One process a peer: each module here runs in the environment of the peer it is named after."""
