# Finds the seed, of which labctl's scripts run, so that nothing secret is in what cloudbase-init logs.
# Only a CD-ROM: whoever can write to a data disk can label it.
$seed = Get-Volume | Where-Object { $_.DriveType -eq 'CD-ROM' -and $_.FileSystemLabel -eq 'cidata' -and $_.DriveLetter } |
    Select-Object -First 1
if (-not $seed) { Write-Host 'labctl: no seed, a CD-ROM with the label cidata'; exit 1 }
