"""The Go structs behind what docker's client 28.2 inspects: names, order, what JSON leaves out.

A line is a struct. A field is `Name`, `Name=json` where JSON has another name, `?` behind where JSON leaves
out an empty value, and `:type`; without a type it is text. Types: b bool, i integer, f float, d duration,
t time, n nothing (`struct {}`), any; `[]x` list, `{}x` map, `*x` pointer, `-` text that JSON never has;
other words are structs. `+x` embeds one. `tests/clients/test_templates.py` holds it against docker's client.
"""

from __future__ import annotations

_TEXT = """
container: +container.base Mounts:[]mountpoint Config:*config NetworkSettings:*netsettings
 ImageManifestDescriptor?:*descriptor
container.base: ID=Id Created Path Args:[]s State:*state Image ResolvConfPath HostnamePath HostsPath
 LogPath Name RestartCount:i Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs:[]s
 HostConfig:*hostconfig GraphDriver:graphdriver SizeRw?:*i SizeRootFs?:*i
state: Status Running:b Paused:b Restarting:b OOMKilled:b Dead:b Pid:i ExitCode:i Error StartedAt
 FinishedAt Health?:*health
health: Status FailingStreak:i Log:[]*healthresult
healthresult: Start:t End:t ExitCode:i Output
healthcheck: Test?:[]s Interval?:d Timeout?:d StartPeriod?:d StartInterval?:d Retries?:i
config: Hostname Domainname User AttachStdin:b AttachStdout:b AttachStderr:b ExposedPorts?:{}n Tty:b
 OpenStdin:b StdinOnce:b Env:[]s Cmd:[]s Healthcheck?:*healthcheck ArgsEscaped?:b Image Volumes:{}n
 WorkingDir Entrypoint:[]s NetworkDisabled?:b MacAddress? OnBuild:[]s Labels:{}s StopSignal?
 StopTimeout?:*i Shell?:[]s
hostconfig: Binds:[]s ContainerIDFile LogConfig:logconfig NetworkMode PortBindings:{}[]portbinding
 RestartPolicy:restartpolicy AutoRemove:b VolumeDriver VolumesFrom:[]s ConsoleSize:[]i Annotations?:{}s
 CapAdd:[]s CapDrop:[]s CgroupnsMode DNS=Dns:[]s DNSOptions=DnsOptions:[]s DNSSearch=DnsSearch:[]s
 ExtraHosts:[]s GroupAdd:[]s IpcMode Cgroup Links:[]s OomScoreAdj:i PidMode Privileged:b PublishAllPorts:b
 ReadonlyRootfs:b SecurityOpt:[]s StorageOpt?:{}s Tmpfs?:{}s UTSMode UsernsMode ShmSize:i Sysctls?:{}s
 Runtime? Isolation +resources Mounts?:[]mount MaskedPaths:[]s ReadonlyPaths:[]s Init?:*b
resources: CPUShares=CpuShares:i Memory:i NanoCPUs=NanoCpus:i CgroupParent BlkioWeight:i
 BlkioWeightDevice:[]*weightdevice BlkioDeviceReadBps:[]*throttledevice
 BlkioDeviceWriteBps:[]*throttledevice BlkioDeviceReadIOps:[]*throttledevice
 BlkioDeviceWriteIOps:[]*throttledevice CPUPeriod=CpuPeriod:i CPUQuota=CpuQuota:i
 CPURealtimePeriod=CpuRealtimePeriod:i CPURealtimeRuntime=CpuRealtimeRuntime:i CpusetCpus CpusetMems
 Devices:[]device DeviceCgroupRules:[]s DeviceRequests:[]devicerequest KernelMemory?:i KernelMemoryTCP?:i
 MemoryReservation:i MemorySwap:i MemorySwappiness:*i OomKillDisable:*b PidsLimit:*i Ulimits:[]*ulimit
 CPUCount=CpuCount:i CPUPercent=CpuPercent:i IOMaximumIOps:i IOMaximumBandwidth:i
logconfig: Type Config:{}s
portbinding: HostIP=HostIp HostPort
restartpolicy: Name MaximumRetryCount:i
device: PathOnHost PathInContainer CgroupPermissions
devicerequest: Driver Count:i DeviceIDs:[]s Capabilities:[][]s Options:{}s
ulimit: Name Hard:i Soft:i
weightdevice: Path Weight:i
throttledevice: Path Rate:i
mount: Type? Source? Target? ReadOnly?:b Consistency? BindOptions?:*bindoptions
 VolumeOptions?:*volumeoptions ImageOptions?:*imageoptions TmpfsOptions?:*tmpfsoptions
 ClusterOptions?:*any
bindoptions: Propagation? NonRecursive?:b CreateMountpoint?:b ReadOnlyNonRecursive?:b
 ReadOnlyForceRecursive?:b
volumeoptions: NoCopy?:b Labels?:{}s Subpath? DriverConfig?:*mountdriver
mountdriver: Name? Options?:{}s
imageoptions: Subpath?
tmpfsoptions: SizeBytes?:i Mode?:i Options?:[][]s
mountpoint: Type? Name? Source Destination Driver? Mode RW:b Propagation
netsettings: +netsettings.base +netsettings.default Networks:{}*endpoint
netsettings.base: Bridge SandboxID SandboxKey Ports:{}[]portbinding HairpinMode:b LinkLocalIPv6Address
 LinkLocalIPv6PrefixLen:i SecondaryIPAddresses:[]address SecondaryIPv6Addresses:[]address
netsettings.default: EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen:i IPAddress IPPrefixLen:i
 IPv6Gateway MacAddress
address: Addr PrefixLen:i
endpoint: IPAMConfig:*endpointipam Links:[]s Aliases:[]s MacAddress DriverOpts:{}s GwPriority:i NetworkID
 EndpointID Gateway IPAddress IPPrefixLen:i IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen:i
 DNSNames:[]s
endpointipam: IPv4Address? IPv6Address? LinkLocalIPs?:[]s
graphdriver: Data:{}s Name
descriptor: MediaType=mediaType Digest=digest Size=size:i URLs=urls?:[]s Annotations=annotations?:{}s
 Data=data? Platform=platform?:*platform ArtifactType=artifactType?
platform: Architecture=architecture OS=os OSVersion=os.version? OSFeatures=os.features?:[]s
 Variant=variant?
image: ID=Id RepoTags:[]s RepoDigests:[]s Parent Comment Created? Container? ContainerConfig?:*config
 DockerVersion Author Config:*imageconfig Architecture Variant? Os OsVersion? Size:i VirtualSize?:i
 GraphDriver:graphdriver RootFS:rootfs Metadata:imagemetadata Descriptor?:*descriptor
 Manifests?:[]manifest
imageconfig: +imageconfig.base +imageconfig.more
imageconfig.base: User? ExposedPorts?:{}n Env?:[]s Entrypoint?:[]s Cmd?:[]s Volumes?:{}n WorkingDir?
 Labels?:{}s StopSignal? ArgsEscaped?:b
imageconfig.more: Healthcheck?:*healthcheck OnBuild?:[]s Shell?:[]s
rootfs: Type? Layers?:[]s
imagemetadata: LastTagTime:t
manifest: ID Descriptor:descriptor Available:b Size:manifestsize Kind ImageData?:*imagedata
 AttestationData?:*attestation
manifestsize: Content:i Total:i
imagedata: Platform:platform Size:unpackedsize Containers:[]s
unpackedsize: Unpacked:i
attestation: For
network: Name ID=Id Created:t Scope Driver EnableIPv4:b EnableIPv6:b IPAM:ipam Internal:b Attachable:b
 Ingress:b ConfigFrom:configfrom ConfigOnly:b Containers:{}networkendpoint Options:{}s Labels:{}s
 Peers?:[]peer Services?:{}any
ipam: Driver Options:{}s Config:[]ipamconfig
ipamconfig: Subnet? IPRange? Gateway? AuxAddress=AuxiliaryAddresses?:{}s
configfrom: Network
networkendpoint: Name EndpointID MacAddress IPv4Address IPv6Address
peer: Name IP
volume: ClusterVolume?:*any CreatedAt? Driver Labels:{}s Mountpoint Name Options:{}s Scope Status?:{}any
 UsageData?:*usagedata
usagedata: RefCount:i Size:i
version: Client:clientversion Server:*serverversion
clientversion: Platform?:*named Version? APIVersion=ApiVersion? DefaultAPIVersion? GitCommit? GoVersion?
 PythonVersion? Os? Arch? BuildTime? Context
named: Name
serverversion: Platform?:named Components?:[]component Version APIVersion=ApiVersion MinAPIVersion?
 GitCommit GoVersion Os Arch KernelVersion? Experimental?:b BuildTime?
component: Name Version Details?:{}s
context: +contextbase TLSMaterial:{}[]s Storage:contextstorage
contextbase: Name Metadata:any Endpoints:{}any
contextstorage: MetadataPath TLSPath
event: Status=status? ID=id? From=from? Type Action Actor:actor Scope=scope? Time=time?:i TimeNano=timeNano?:i
actor: ID Attributes:{}s
info: +*info.server ServerErrors?:[]s UserName?:- ClientInfo?:*clientinfo ClientErrors?:[]s
info.server: ID Containers:i ContainersRunning:i ContainersPaused:i ContainersStopped:i Images:i Driver
 DriverStatus:[][]s SystemStatus?:[][]s Plugins:plugins MemoryLimit:b SwapLimit:b KernelMemory?:b
 KernelMemoryTCP?:b CPUCfsPeriod=CpuCfsPeriod:b CPUCfsQuota=CpuCfsQuota:b CPUShares:b CPUSet:b PidsLimit:b
 IPv4Forwarding:b Debug:b NFd:i OomKillDisable:b NGoroutines:i SystemTime LoggingDriver CgroupDriver
 CgroupVersion? NEventsListener:i KernelVersion OperatingSystem OSVersion OSType Architecture
 IndexServerAddress RegistryConfig:*registries NCPU:i MemTotal:i GenericResources:[]any DockerRootDir
 HTTPProxy=HttpProxy HTTPSProxy=HttpsProxy NoProxy Name Labels:[]s ExperimentalBuild:b ServerVersion
 Runtimes:{}runtime DefaultRuntime Swarm:swarm LiveRestoreEnabled:b Isolation InitBinary
 ContainerdCommit:commit RuncCommit:commit InitCommit:commit SecurityOptions:[]s ProductLicense?
 DefaultAddressPools?:[]pool FirewallBackend?:*firewall CDISpecDirs:[]s DiscoveredDevices?:[]any
 Containerd?:*containerd Warnings:[]s
plugins: Volume:[]s Network:[]s Authorization:[]s Log:[]s
registries: IndexConfigs:{}*index InsecureRegistryCIDRs:[]s Mirrors:[]s
index: Mirrors:[]s Name Official:b Secure:b
runtime: +runtime.base Status=status?:{}s
runtime.base: Path=path? Args=runtimeArgs?:[]s Type=runtimeType? Options=options?:{}any
swarm: NodeID NodeAddr LocalNodeState ControlAvailable:b Error RemoteManagers:[]any Nodes?:i Managers?:i
 Cluster?:*any Warnings?:[]s
commit: ID Expected?
pool: Base Size:i
firewall: Driver Info?:[][]s
containerd: Address? Namespaces:containerdnamespaces
containerdnamespaces: Containers Plugins
clientinfo: Debug:b +clientversion Plugins:[]any Warnings:[]s
"""

# How Go calls the types that its errors name.
GO_NAMES = {
    "context": "context.contextWithTLSListing",
    "contextbase": "store.Metadata",
    "event": "*events.Message",
    "clientinfo": "*system.clientInfo",
    "info": "system.dockerInfo",
    "serverversion": "*types.Version",
    "clientversion": "system.clientVersion",
    "version": "system.versionInfo",
    "volume": "volume.Volume",
}


# The names of the embedded structs, which a template may use too.
GO_EMBEDDED = {
    "contextbase": "Metadata",
    "container.base": "ContainerJSONBase",
    "resources": "Resources",
    "runtime.base": "Runtime",
    "netsettings.base": "NetworkSettingsBase",
    "netsettings.default": "DefaultNetworkSettings",
    "imageconfig.base": "ImageConfig",
    "imageconfig.more": "DockerOCIImageConfigExt",
    "*info.server": "Info",
}


def _read() -> dict[str, list[tuple[str, str, bool, str, bool]]]:
    found: dict[str, list[tuple[str, str, bool, str, bool]]] = {}
    for line in _TEXT.replace("\n ", " ").strip().splitlines():
        name, _, rest = line.partition(": ")
        fields = []
        for word in rest.split():
            if word[0] == "+":
                fields.append(("", "", False, word[1:], True))
                continue
            head, _, kind = word.partition(":")
            omitted = head.endswith("?")
            go, _, json = head.rstrip("?").partition("=")
            fields.append((go, json or go, omitted, kind or "s", False))
        found[name] = fields
    return found


STRUCTS = _read()
