"""A bare Debian host becomes a gateway, over SSH.

    survey → plan → apply

`survey` asks the host what is there and changes nothing; `plan` compares that with what belongs
there; `apply` does the steps of the plan in order. Each step looks at the host again or replaces
things in one stroke, so that a run that was interrupted anywhere is completed by the next one, and
a run with nothing to do has an empty plan.

On the host:

    /opt/netzpuls/wheel/             packages, as they were sent
    /opt/netzpuls/release/<release>/ a virtual environment each; `.complete` says that it is whole
    /opt/netzpuls/current, previous  which of them runs, and which ran before
    /var/lib/netzpuls/               the gateway's folder (`fleet.gateway.settings.Folder`)
    /etc/systemd/system/netzpuls-broker.service, netzpuls-collector.service
"""
