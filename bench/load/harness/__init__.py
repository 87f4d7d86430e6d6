"""Side-by-side load measurement of reverse proxies, one core for the proxy, one for everything else."""
