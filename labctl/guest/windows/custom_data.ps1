# Runs the user's script once on each OS disk, and keeps its output and how it ended.
# windows_scripts.py puts $config before it: instanceId, kind and content of the script.
# Exit codes are cloudbase-init's: 1001 restart, 1002 again at the next boot, 1003 both.
$ErrorActionPreference = 'Stop'
$root = Join-Path $env:ProgramData 'labctl'
$verdict = Join-Path $root 'custom-data.json'
$log = Join-Path $root 'custom-data.log'
if (Test-Path -LiteralPath $verdict) {
    if ((ConvertFrom-Json ([IO.File]::ReadAllText($verdict))).instanceId -eq $config.instanceId) { exit 0 }
}
$hive = [Microsoft.Win32.RegistryKey]::OpenBaseKey('LocalMachine', 'Registry64')
# At a later boot the boot script runs beside this one.
$until = [DateTime]::UtcNow.AddMinutes(10)
while (-not ($run = $hive.OpenSubKey('SOFTWARE\labctl-run')) -or -not $run.GetValue('boot')) {
    if ([DateTime]::UtcNow -gt $until) { throw 'the boot script has not run' }
    Start-Sleep -Milliseconds 500
}
$extension = 'ps1'
$system = 'System32'
if ($config.kind -eq 'cmd') { $extension = 'cmd' }
if ($config.kind -eq 'ps1_x86') { $system = 'SysWOW64' }
$file = Join-Path $root "custom-data.$extension"
[IO.File]::WriteAllBytes($file, [Convert]::FromBase64String($config.content))
$program = "`"$file`""
if ($extension -eq 'ps1') {
    $shell = Join-Path $env:SystemRoot "$system\WindowsPowerShell\v1.0\powershell.exe"
    $program = "`"$shell`" -NoProfile -NonInteractive -ExecutionPolicy Bypass -File `"$file`""
}
# cmd.exe keeps both outputs in one file as they come, and gives the exit code on.
$start = New-Object Diagnostics.ProcessStartInfo 'cmd.exe', "/d /s /c `"$program >>`"$log`" 2>&1`""
$start.UseShellExecute = $false
$start.WorkingDirectory = $root
$process = [Diagnostics.Process]::Start($start)
$process.WaitForExit()
$code = $process.ExitCode
if ($code -eq 1002 -or $code -eq 1003) { exit $code }
$report = @{ instanceId = $config.instanceId; status = 'done'; exitCode = $code; restartsAfter = '' }
if ($code -eq 1001) { $report.restartsAfter = $run.GetValue('bootId') }
elseif ($code -ne 0) { $report.status = 'failed' }
[IO.File]::WriteAllText("$verdict.part", (ConvertTo-Json $report -Compress))
if (Test-Path -LiteralPath $verdict) { Remove-Item -LiteralPath $verdict }
[IO.File]::Move("$verdict.part", $verdict)
exit $code
