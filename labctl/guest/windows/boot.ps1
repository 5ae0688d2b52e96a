# Prepares a Windows instance at every boot: data disks, the way in for labctl, the health agent.
# windows_scripts.py puts $config, this instance's values, before it. The launcher runs it from the
# seed: by cloudbase-init at the first boot, by a scheduled task at each one. Running it twice
# changes nothing. ASCII only, since Windows PowerShell takes a file without a mark for an old code page.
$ErrorActionPreference = 'Stop'
$root = Join-Path $env:ProgramData 'labctl'
$script:status = 'ok'
$script:disks = @()

function Write-Story([string] $text) {
    # To the serial console as well, which is all that is seen of an instance that nobody can reach.
    Write-Host "labctl: $text"
    $port = New-Object System.IO.Ports.SerialPort 'COM1', 115200
    try {
        $port.WriteTimeout = 1000
        $port.Open()
        $port.WriteLine("labctl: $text")
    }
    catch [System.IO.IOException], [System.UnauthorizedAccessException], [System.TimeoutException] {
        Write-Host 'labctl: the serial port is in use'
    }
    finally {
        $port.Dispose()
    }
}

function Get-Bytes([string] $base64) {
    , [Convert]::FromBase64String($base64)
}

# --- Files that belong to the system and its administrators ---------------------------------------

function Protect-Path([string] $path, [string] $rights) {
    # By number, since the names of accounts differ by language: SYSTEM, Administrators.
    & icacls.exe $path /inheritance:r /grant:r "*S-1-5-18:$rights" "*S-1-5-32-544:$rights" /q | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "icacls $path ended with $LASTEXITCODE" }
    & icacls.exe $path /setowner '*S-1-5-32-544' /q | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "icacls $path ended with $LASTEXITCODE" }
}

function New-PrivateDirectory([string] $path) {
    New-Item -ItemType Directory -Force -Path $path | Out-Null
    Protect-Path $path '(OI)(CI)F'
}

function Set-PrivateFile([string] $path, [byte[]] $content) {
    # Returns whether it was another before.
    if (Test-Path -LiteralPath $path) {
        if ([Convert]::ToBase64String([IO.File]::ReadAllBytes($path)) -eq [Convert]::ToBase64String($content)) {
            return $false
        }
    }
    $part = "$path.part"
    [IO.File]::WriteAllBytes($part, (New-Object byte[] 0))
    Protect-Path $part 'F'
    [IO.File]::WriteAllBytes($part, $content)
    if (Test-Path -LiteralPath $path) {
        [IO.File]::Replace($part, $path, [NullString]::Value)
    }
    else {
        [IO.File]::Move($part, $path)
    }
    Protect-Path $path 'F'
    return $true
}

# --- What is true of this boot only ---------------------------------------------------------------

function Open-RunKey {
    # A volatile key is gone with the power, as /run is elsewhere.
    $hive = [Microsoft.Win32.RegistryKey]::OpenBaseKey('LocalMachine', 'Registry64')
    $key = $hive.CreateSubKey('SOFTWARE\labctl-run',
        [Microsoft.Win32.RegistryKeyPermissionCheck]::ReadWriteSubTree,
        [Microsoft.Win32.RegistryOptions]::Volatile)
    if (-not $key.GetValue('bootId')) {
        $key.SetValue('bootId', [Guid]::NewGuid().ToString())
    }
    return $key
}

function Disable-FastStartup {
    # It would keep the kernel, and with it volatile keys, over a shutdown.
    $power = 'HKLM:\SYSTEM\CurrentControlSet\Control\Session Manager\Power'
    if (Test-Path $power) { Set-ItemProperty $power HiberbootEnabled 0 -Type DWord }
}

# --- Data disks -----------------------------------------------------------------------------------

Add-Type -TypeDefinition @'
using System;
using System.IO;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

public static class LabctlRawDisk
{
    [DllImport("kernel32.dll", SetLastError = true, CharSet = CharSet.Unicode)]
    static extern SafeFileHandle CreateFile(string name, uint access, uint share, IntPtr security,
        uint disposition, uint flags, IntPtr template);

    // Zeros in the first and the last MiB, where every file system, volume manager and partition
    // table has a signature.
    public static bool IsBlank(int number, long size)
    {
        using (SafeFileHandle handle = CreateFile(@"\\.\PhysicalDrive" + number, 0x80000000, 3,
            IntPtr.Zero, 3, 0, IntPtr.Zero))
        {
            if (handle.IsInvalid) Marshal.ThrowExceptionForHR(Marshal.GetHRForLastWin32Error());
            using (FileStream stream = new FileStream(handle, FileAccess.Read, 1 << 20))
                return IsZero(stream, 0) && IsZero(stream, size - (1 << 20));
        }
    }

    static bool IsZero(FileStream stream, long offset)
    {
        byte[] data = new byte[1 << 20];
        stream.Seek(offset, SeekOrigin.Begin);
        for (int at = 0; at < data.Length; )
        {
            int count = stream.Read(data, at, data.Length - at);
            if (count == 0) return false;
            at += count;
        }
        return Array.TrueForAll(data, delegate(byte each) { return each == 0; });
    }
}
'@

function Add-DiskReport([string] $name, [string] $state, [string] $detail) {
    Write-Story "data disk ${name}: $state $detail"
    if ($state -eq 'failed') { $script:status = 'failed' }
    $script:disks += @{ name = $name; state = $state; detail = $detail }
}

# Windows calls a disk RAW also when a file system of another system lies on it, so its bytes decide.
# Every doubt means "not blank".
function Test-Blank($disk) {
    return $disk.PartitionStyle -eq 'RAW' -and [LabctlRawDisk]::IsBlank($disk.Number, $disk.Size)
}

# The mark says that the power may have gone away while labctl made the file system. A disk that has
# one is never made anew, mark or not.
function Format-DataDisk($disk, [string] $name, [string] $mark) {
    [IO.File]::WriteAllText($mark, $disk.UniqueId)
    if ($disk.PartitionStyle -eq 'RAW') {
        Initialize-Disk -Number $disk.Number -PartitionStyle GPT
    }
    $partition = Get-Partition -DiskNumber $disk.Number -ErrorAction SilentlyContinue |
        Where-Object { $_.Type -eq 'Basic' }
    if (-not $partition) {
        $partition = New-Partition -DiskNumber $disk.Number -UseMaximumSize
    }
    Format-Volume -Partition $partition -FileSystem NTFS -NewFileSystemLabel $name -Confirm:$false | Out-Null
    Remove-Item -LiteralPath $mark
}

function Test-Unfinished($disk, [string] $mark) {
    if (-not (Test-Path -LiteralPath $mark)) { return $false }
    if ([IO.File]::ReadAllText($mark) -ne $disk.UniqueId) { return $false }
    $volumes = @(Get-Partition -DiskNumber $disk.Number -ErrorAction SilentlyContinue |
            Where-Object { $_.Type -eq 'Basic' } | Get-Volume)
    # One that is half made has no file system that Windows knows.
    return @($volumes | Where-Object { $_.FileSystem }).Count -eq 0
}

function Initialize-DataDisk($wanted) {
    $name = $wanted.name
    $found = @(Get-Disk | Where-Object { "$($_.SerialNumber)".Trim() -eq "data-$name" })
    if ($found.Count -ne 1) {
        Add-DiskReport $name failed "$($found.Count) disks have the serial data-$name"
        return
    }
    $number = $found[0].Number
    # Windows keeps disks that it has not seen before offline.
    if ($found[0].IsOffline) { Set-Disk -Number $number -IsOffline $false }
    if ($found[0].IsReadOnly) { Set-Disk -Number $number -IsReadOnly $false }
    $disk = Get-Disk -Number $number
    $state = 'attached'
    $mark = Join-Path $root "formatting-$name"
    if ($wanted.fileSystem -eq 'ntfs' -and ((Test-Unfinished $disk $mark) -or (Test-Blank $disk))) {
        Format-DataDisk $disk $name $mark
        $state = 'formatted'
    }
    if (Test-Path -LiteralPath $mark) { Remove-Item -LiteralPath $mark }
    if ($wanted.mountPoint) {
        $letter = $wanted.mountPoint.Substring(0, 1)
        $partitions = @(Get-Partition -DiskNumber $number -ErrorAction SilentlyContinue |
                Where-Object { $_.Type -eq 'Basic' })
        if ($partitions.Count -ne 1) {
            Add-DiskReport $name failed "it is not blank, and has $($partitions.Count) partitions instead of one"
            return
        }
        if ("$($partitions[0].DriveLetter)" -ne $letter) {
            if (Get-Volume -DriveLetter $letter -ErrorAction SilentlyContinue) {
                Add-DiskReport $name failed "the drive letter ${letter}: is taken"
                return
            }
            $partitions[0] | Set-Partition -NewDriveLetter $letter
        }
        if ($state -eq 'attached') { $state = 'mounted' }
    }
    Add-DiskReport $name $state "$($wanted.mountPoint)"
}

# --- The way in -----------------------------------------------------------------------------------

function Add-Account {
    if (Get-LocalUser -Name labctl -ErrorAction SilentlyContinue) { return }
    # Nobody learns the password: labctl logs in with its key.
    $random = New-Object byte[] 32
    [Security.Cryptography.RandomNumberGenerator]::Create().GetBytes($random)
    $password = ConvertTo-SecureString ('aA1!' + [Convert]::ToBase64String($random)) -AsPlainText -Force
    New-LocalUser -Name labctl -Password $password -PasswordNeverExpires -AccountNeverExpires `
        -Description 'labctl manages this instance' | Out-Null
    Add-LocalGroupMember -SID S-1-5-32-544 -Member labctl
}

function Install-Keys {
    $directory = Join-Path $env:ProgramData 'ssh'
    New-Item -ItemType Directory -Force -Path $directory | Out-Null
    # For administrators sshd reads this one file.
    $file = Join-Path $directory 'administrators_authorized_keys'
    $lines = @()
    if (Test-Path -LiteralPath $file) { $lines = @([IO.File]::ReadAllLines($file)) }
    foreach ($key in $config.authorizedKeys) {
        if ($lines -notcontains $key) { $lines += $key }
    }
    $text = ($lines -join "`n") + "`n"
    Set-PrivateFile $file ([Text.Encoding]::UTF8.GetBytes($text)) | Out-Null
    $hostKey = Join-Path $directory 'ssh_host_ed25519_key'
    $isNew = Set-PrivateFile $hostKey (Get-Bytes $config.hostKey)
    if (Set-PrivateFile "$hostKey.pub" (Get-Bytes $config.hostKeyPublic)) { $isNew = $true }
    return $isNew
}

function Open-Port([string] $name, [int] $port) {
    if (-not (Get-NetFirewallRule -Name $name -ErrorAction SilentlyContinue)) {
        New-NetFirewallRule -Name $name -DisplayName $name -Direction Inbound -Protocol TCP `
            -LocalPort $port -Action Allow | Out-Null
    }
}

function Start-Ssh([bool] $isKeyNew) {
    if (-not (Get-Service sshd -ErrorAction SilentlyContinue)) {
        throw 'this image has no OpenSSH server (the service sshd)'
    }
    Set-Service sshd -StartupType Automatic
    if ($isKeyNew) { Restart-Service sshd -Force } else { Start-Service sshd }
}

# --- Windows Update -------------------------------------------------------------------------------

function Set-AutomaticUpdates([bool] $isOn) {
    $policy = 'HKLM:\SOFTWARE\Policies\Microsoft\Windows\WindowsUpdate\AU'
    if (-not (Test-Path $policy)) { New-Item -Path $policy -Force | Out-Null }
    Set-ItemProperty $policy NoAutoUpdate ([int](-not $isOn)) -Type DWord
}

# --- Tasks ----------------------------------------------------------------------------------------

function Register-Task([string] $name, $action, [string] $account, $trigger) {
    $principal = New-ScheduledTaskPrincipal -UserId $account -LogonType ServiceAccount -RunLevel Highest
    $settings = New-ScheduledTaskSettingsSet -ExecutionTimeLimit ([TimeSpan]::Zero) -RestartCount 255 `
        -RestartInterval (New-TimeSpan -Minutes 1) -AllowStartIfOnBatteries -DontStopIfGoingOnBatteries
    $parts = @{ TaskName = $name; Action = $action; Principal = $principal; Settings = $settings; Force = $true }
    if ($trigger) { $parts.Trigger = $trigger }
    Register-ScheduledTask @parts | Out-Null
}

function Register-BootTask {
    $words = "-NoProfile -NonInteractive -ExecutionPolicy Bypass -EncodedCommand $($config.launcher)"
    $action = New-ScheduledTaskAction -Execute powershell.exe -Argument $words
    Register-Task labctl-boot $action S-1-5-18 (New-ScheduledTaskTrigger -AtStartup)
}

function Install-Agent {
    $directory = Join-Path $root 'health'
    New-PrivateDirectory $directory
    # The agent needs no rights: it runs as LOCAL SERVICE, which may read its files.
    & icacls.exe $directory /grant:r '*S-1-5-19:(OI)(CI)RX' /q | Out-Null
    $program = Join-Path $directory 'agent.exe'
    $sourceFile = Join-Path $directory 'agent.cs'
    $configFile = Join-Path $directory 'config'
    $source = [Text.Encoding]::UTF8.GetString((Get-Bytes $config.health.source))
    $known = ''
    if (Test-Path -LiteralPath $sourceFile) { $known = [IO.File]::ReadAllText($sourceFile) }
    if ($known -ne $source -or -not (Test-Path -LiteralPath $program)) {
        Stop-ScheduledTask labctl-health -ErrorAction SilentlyContinue
        $libraries = @('System', 'System.Core', 'System.Xml', 'System.Xml.Linq', 'System.Runtime.Serialization')
        Add-Type -TypeDefinition $source -OutputAssembly $program -OutputType ConsoleApplication -ReferencedAssemblies $libraries
        [IO.File]::WriteAllText($sourceFile, $source)
    }
    $lines = [Text.Encoding]::UTF8.GetString((Get-Bytes $config.health.config))
    [IO.File]::WriteAllText($configFile, $lines + "bootId=$($run.GetValue('bootId'))`n")
    Open-Port labctl-health $config.health.port
    $action = New-ScheduledTaskAction -Execute $program -Argument "`"$configFile`""
    Register-Task labctl-health $action S-1-5-19 $null
    Start-ScheduledTask labctl-health
}

# --- All of it ------------------------------------------------------------------------------------

function Invoke-Step([string] $name, [scriptblock] $step) {
    # What fails must not keep the rest from being tried: without the way in nobody learns of it.
    try { & $step }
    catch {
        Write-Story "$name failed: $($_.Exception.Message)"
        $script:status = 'failed'
    }
}

New-PrivateDirectory $root
$run = Open-RunKey
$run.DeleteValue('boot', $false)
Invoke-Step 'the boot task' { Register-BootTask; Disable-FastStartup }
Invoke-Step 'Windows Update' { Set-AutomaticUpdates $config.enableAutomaticUpdates }
foreach ($wanted in $config.dataDisks) {
    try { Initialize-DataDisk $wanted }
    catch { Add-DiskReport $wanted.name failed $_.Exception.Message }
}
Invoke-Step 'the account labctl' { Add-Account }
Invoke-Step 'the health agent' { if ($config.health) { Install-Agent } }
Invoke-Step 'the SSH server' {
    Open-Port labctl-ssh 22
    Start-Ssh (Install-Keys)
}
$report = @{
    instanceId = $config.instanceId
    status     = $script:status
    customData = $config.customData
    dataDisks  = $script:disks
}
$run.SetValue('boot', (ConvertTo-Json $report -Compress -Depth 4))
if ($script:status -ne 'ok') { Write-Story 'the instance is not prepared as it should be' }
