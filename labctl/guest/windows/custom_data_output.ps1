# How custom data ended and what it printed last, for the message of its failure.
foreach ($name in 'custom-data.json', 'custom-data.log') {
    $file = Join-Path $env:ProgramData "labctl\$name"
    if (Test-Path -LiteralPath $file) { Get-Content -LiteralPath $file -Tail 40 }
}
