"""Programs that drive the clients of the clouds' metadata services, as they are in
Debian's packages: each runs alone in a private network and prints what it got."""
