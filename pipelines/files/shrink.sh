# No documentation, no translations, neither now nor with later packages.
cat >/etc/dpkg/dpkg.cfg.d/small <<'END'
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
END
find /usr/share/doc -type f ! -name copyright -delete
rm -rf /usr/share/man/* /usr/share/locale/*
apt-get -y autoremove --purge
