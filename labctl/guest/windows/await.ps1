# Waits until this boot is prepared and the custom data is through. Prints lines "KEY VALUE" as the
# script for Linux does; the last key is always `outcome`. $config: seconds to wait at most.
$ErrorActionPreference = 'Stop'
$verdict = Join-Path $env:ProgramData 'labctl\custom-data.json'
$hive = [Microsoft.Win32.RegistryKey]::OpenBaseKey('LocalMachine', 'Registry64')
$end = [DateTime]::UtcNow.AddSeconds($config.seconds)

function Find-Outcome {
    $run = $hive.OpenSubKey('SOFTWARE\labctl-run')
    if (-not $run) { return }
    $boot = $run.GetValue('boot')
    if (-not $boot) { return }
    $report = ConvertFrom-Json $boot
    $found = $null
    if (Test-Path -LiteralPath $verdict) {
        $found = ConvertFrom-Json ([IO.File]::ReadAllText($verdict))
        if ($found.instanceId -ne $report.instanceId) { $found = $null } # of the machine that the image was
    }
    # cloudbase-init notes what it has run, for each instance-id.
    $plugins = $hive.OpenSubKey("SOFTWARE\Cloudbase Solutions\Cloudbase-Init\$($report.instanceId)\Plugins")
    $isThrough = $plugins -and $plugins.GetValue('UserDataPlugin') -eq 1
    if ($found) {
        if ($found.restartsAfter -eq $run.GetValue('bootId')) { return }
        $done = $found
    }
    elseif (-not $isThrough) { return }
    elseif ($report.customData -eq 'script') {
        $done = @{ status = 'failed'; detail = 'cloudbase-init did not get to run it; see its log' }
    }
    else { $done = @{ status = 'done' } }
    "boot-id $($run.GetValue('bootId'))"
    "boot $boot"
    "custom-data $(ConvertTo-Json $done -Compress)"
    'outcome custom-data'
}

while ($true) {
    $lines = @(Find-Outcome)
    if ($lines.Count) { $lines; break }
    if ([DateTime]::UtcNow -ge $end) { 'outcome timeout'; break }
    Start-Sleep -Milliseconds 500
}
