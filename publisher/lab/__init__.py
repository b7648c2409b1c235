"""Labs: throwaway machines that run an image on the user's own computer."""
