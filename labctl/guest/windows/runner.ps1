# Runs one extension as SYSTEM, with a deadline, and keeps its output and how it ended; run.json
# beside it says which.
$ErrorActionPreference = 'Stop'
$told = ConvertFrom-Json ([IO.File]::ReadAllText((Join-Path $PSScriptRoot 'run.json')))
$dir = $told.dir
try { New-Item -ItemType Directory -Path (Join-Path $dir "claim-$($told.boot)") | Out-Null }
catch [System.IO.IOException] { exit } # another start was faster
$script = Join-Path $dir $told.script
$output = Join-Path $dir 'output'
$program = "`"$script`""
if ($script.EndsWith('.ps1')) {
    $program = "powershell.exe -NoProfile -NonInteractive -ExecutionPolicy Bypass -File `"$script`""
}
# cmd.exe keeps both outputs in one file as they come, and gives the exit code on.
$start = New-Object Diagnostics.ProcessStartInfo 'cmd.exe', "/d /s /c `"$program >`"$output`" 2>&1`""
$start.UseShellExecute = $false
$start.WorkingDirectory = $env:SystemRoot
if ($told.settings) { $start.EnvironmentVariables['LABCTL_SETTINGS_DIR'] = $told.settings }
$process = [Diagnostics.Process]::Start($start)
$verdict = 'code=none timed_out=1'
if ($process.WaitForExit(1000 * $told.seconds)) {
    $verdict = "code=$($process.ExitCode) timed_out=0"
}
else {
    & taskkill.exe /pid $process.Id /t /f | Out-Null
    $process.WaitForExit(10000) | Out-Null
}
if ($told.settings) { Remove-Item -LiteralPath $told.settings -Recurse -Force }
$end = Join-Path $dir 'exit'
[IO.File]::WriteAllText("$end.part", $verdict)
[IO.File]::Move("$end.part", $end)
