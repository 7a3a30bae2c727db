"""A SLURM of two nodes on this machine, in a folder of its own; two hosts as network namespaces. docs/slurm.md has the recipe."""
import os
import pathlib
import secrets
import signal
import socket
import subprocess
import time

NODES = ("n1", "n2")
CONF = """ClusterName=kt
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
TmpFS={folder}/tmp.%n
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=pmix
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobRequeue=1
ReturnToService=2
KillWait=5
SchedulerParameters=batch_sched_delay=0,sched_interval=5,sched_min_interval=0,bf_interval=5
SlurmdParameters=config_overrides
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=8000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 Boards=1 SocketsPerBoard=1 CoresPerSocket=2 ThreadsPerCore=1 RealMemory=8000
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def wait_until(condition, seconds, what):
    """Looks every fifth of a second; what takes longer is an error."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise RuntimeError(f"{what}: not within {seconds} s")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def processes_of(mark):
    """Processes whose environment or command line has the words `mark`: {pid: environment}."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            line = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mark.encode() in environment or mark.encode() in line:
            found[int(entry.name)] = (line.replace(b"\0", b" ").decode(errors="replace"),
                                      environment.decode(errors="replace").split("\0"))
    return found


def kill_all(mark):
    """Ends, by their numbers, all processes that carry the mark."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + 10
        for pid in processes_of(mark):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        while processes_of(mark) and time.monotonic() < end:
            time.sleep(0.1)


class Cluster:
    """Its daemons are children of this process and end with `stop`, jobs and all."""

    def __init__(self, folder):
        self.folder = folder
        self.daemons = []
        self.environment = dict(
            os.environ, SLURM_CONF=f"{folder}/slurm.conf", OMPI_MCA_btl_tcp_if_include="lo",
            OMPI_MCA_mpi_yield_when_idle="1", OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")

    def daemon(self, name, command):
        log = open(self.folder / "log" / f"{name}.out", "ab")
        self.daemons.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                             env=self.environment, start_new_session=True))

    def start(self):
        folder = self.folder
        for name in ("run", "log", "state", "spool.n1", "spool.n2", "tmp.n1", "tmp.n2"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        conf = folder / "slurm.conf"
        conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, ports=free_ports(3)))
        self.daemon("munged", ["munged", "--foreground", "--force", f"--key-file={key}",
                               f"--socket={folder}/run/munge.sock", f"--pid-file={folder}/run/munged.pid",
                               f"--log-file={folder}/log/munged.log", f"--seed-file={folder}/run/munge.seed"])
        wait_until((folder / "run" / "munge.sock").exists, 30, "munged")
        self.daemon("slurmctld", ["slurmctld", "-D", "-f", conf])
        for node in NODES:
            # A host name and a shared memory of its own, as a machine has.
            self.daemon(f"slurmd.{node}", [
                "unshare", "--uts", "--mount", "--propagation", "private", "bash", "-c",
                f"hostname {node}; mount -t tmpfs -o size=512m tmpfs /dev/shm; "
                f"exec slurmd -D -f {conf} -N {node}"])
        self.await_nodes()

    def await_nodes(self):
        wait_until(lambda: self.run(["sinfo", "-h", "-t", "idle", "-o", "%D"]).stdout.strip() == "2",
                   120, "two idle nodes")

    def stop(self):
        for daemon in reversed(self.daemons):
            daemon.terminate()
        kill_all(str(self.folder))
        for daemon in self.daemons:
            daemon.wait()

    def run(self, command, folder=None, timeout=300):
        return subprocess.run(command, cwd=folder, env=self.environment, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def submit(self, script, folder, *options):
        """The number of the job."""
        said = self.run(["sbatch", "--parsable", *options, script], folder)
        if said.returncode != 0:
            raise RuntimeError(f"sbatch: {said.stdout}")
        return said.stdout.strip()

    def job(self, number):
        """What scontrol knows of a job, as a dictionary."""
        words = self.run(["scontrol", "-o", "show", "job", number]).stdout.split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number, seconds):
        """Waits for the end of a job that takes itself up again. Returns: its state, code, restarts."""
        done = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL")
        wait_until(lambda: self.job(number).get("JobState") in done, seconds, f"end of job {number}")
        job = self.job(number)
        return job["JobState"], job["ExitCode"], int(job["Restarts"])

    def ranks(self, number, node=None):
        """Processes of the ranks of a job that train on a node."""
        marks = [f"SLURM_JOB_ID={number}"] + ([f"SLURMD_NODENAME={node}"] if node else [])
        return [pid for pid, (line, environment) in processes_of(f"SLURM_JOB_ID={number}").items()
                if " train " in line and "supervise" not in line and "mpirun" not in line.split(" ")[0]
                and not line.startswith("srun") and all(mark in environment for mark in marks)
                and any(word.startswith(("OMPI_COMM_WORLD_RANK=", "PMIX_RANK=")) for word in environment)]


class Hosts:
    """Two network namespaces, joined by a cable; `shell` is what ssh would be to their hosts."""
    ADDRESSES = ("10.77.0.1", "10.77.0.2")

    def __init__(self, folder):
        self.folder = folder
        self.names = [f"kt{os.getpid()}{letter}" for letter in "AB"]
        self.shell = folder / "shell"

    def start(self):
        a, b = self.names
        cables = [f"v{os.getpid()}{letter}" for letter in "AB"]
        commands = [f"netns add {a}", f"netns add {b}",
                    f"link add {cables[0]} netns {a} type veth peer name {cables[1]} netns {b}"]
        for name, cable, address in zip(self.names, cables, self.ADDRESSES):
            commands += [f"-n {name} addr add {address}/24 dev {cable}", f"-n {name} link set lo up",
                         f"-n {name} link set {cable} up"]
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        # A host that is down has a file of its name beside it.
        self.shell.write_text(f"""#!/bin/bash
while [[ $1 == -* ]]; do shift; done
host=$1; shift
[ ! -e {self.folder}/$host.down ] || exit 255
case $host in {self.ADDRESSES[0]}) ns={a};; *) ns={b};; esac
exec ip netns exec $ns unshare --uts --mount --propagation private \\
  bash -c "hostname $ns; mount -t tmpfs -o size=512m tmpfs /dev/shm; $*"
""")
        self.shell.chmod(0o755)

    def stop(self):
        for name in self.names:
            said = subprocess.run(["ip", "netns", "pids", name], text=True, capture_output=True)
            for pid in said.stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def ranks(self, mark):
        """Processes of the ranks on the second host of the run with the words `mark`."""
        said = subprocess.run(["ip", "netns", "pids", self.names[1]], text=True, capture_output=True)
        inside = {int(pid) for pid in said.stdout.split()}
        return [pid for pid, (line, environment) in processes_of(mark).items()
                if pid in inside and " train " in line
                and any(word.startswith("OMPI_COMM_WORLD_RANK=") for word in environment)]
