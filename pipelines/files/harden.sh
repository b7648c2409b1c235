# Security updates by themselves, and no one logs in with a password.
printf 'PasswordAuthentication no\nPermitRootLogin no\n' >/etc/ssh/sshd_config.d/50-keys-only.conf
sshd -t
systemctl enable unattended-upgrades
