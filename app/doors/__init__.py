"""Other APIs over the same chats, for clients that speak nothing else: a package for each dialect."""
